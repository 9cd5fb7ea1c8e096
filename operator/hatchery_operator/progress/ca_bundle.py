"""With what pods verify the progress endpoint: one file that holds the certificates of all replicas.

Every replica has a key of its own in its memory and publishes its certificate under a data key of its own in a
ConfigMap of the operator's namespace. The leader joins them, and writes the joined file to each namespace in use.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Final

from cryptography import x509

from hatchery_operator.domain.labels import CA_CONFIG_MAP, CA_KEY
from hatchery_operator.domain.objects import MANAGED_BY_LABEL, MANAGER, Manifest
from hatchery_operator.domain.observed import stage_in_flight
from hatchery_operator.errors import ApiError, OperatorError, RefusedError
from hatchery_operator.kube.cache import Cache
from hatchery_operator.kube.client import Cluster

LOG: Final = logging.getLogger(__name__)

KEPT: Final = 8
"""Newest certificates that are kept: two rolling updates of a few replicas; a restarted container replaces its own."""

LOOK_SECONDS: Final = 10.0
"""Time between two looks of the leader at what replicas have published."""

PUBLISH_SECONDS: Final = 60.0
"""Time between two looks of a replica whether its certificate is still published."""

Read = Callable[[], Awaitable[str]]
"""The file as it should be now."""


class ReplicaCertificates:
    """The certificates of the replicas, in the operator's own namespace."""

    def __init__(self, cluster: Cluster, namespace: str, name: str, replica: str, own: str) -> None:
        """Takes its parts.

        Args:
            cluster: the API server.
            namespace: the operator's own.
            name: name of the ConfigMap.
            replica: this replica: the pod's name, so that a restarted container replaces what it published before.
            own: this replica's certificate, PEM.
        """
        self._cluster = cluster
        self._metadata = {"name": name, "namespace": namespace}
        self._replica = replica
        self._key = f"{replica}.crt"
        self._own = own

    async def keep_published(self) -> None:
        """Publishes this replica's certificate, again when it is lost, until cancelled."""
        while True:
            try:
                if (await self._published()).get(self._key) != self._own:
                    await self._publish()
            except ApiError as error:
                LOG.warning("the progress certificate is not published: %s", error)
            await asyncio.sleep(PUBLISH_SECONDS)

    async def _publish(self) -> None:
        await self._cluster.apply(self._manifest({self._key: self._own}), f"{MANAGER}-{self._replica}", fenced=False)

    def _manifest(self, data: dict[str, Any]) -> Manifest:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": self._metadata, "data": data}

    async def _published(self) -> dict[str, str]:
        found = await self._cluster.get("ConfigMap", self._metadata["namespace"], self._metadata["name"])
        return dict(found.get("data") or {}) if found else {}

    async def joined(self) -> str:
        """The newest certificates as one file; older ones are removed where they were published."""
        published = {**await self._published(), self._key: self._own}
        by_age = sorted(published, key=lambda key: (_not_before(published[key]), key), reverse=True)
        kept = sorted({self._key, *[key for key in by_age if _not_before(published[key])][: KEPT - 1]})
        if dropped := {key: None for key in by_age if key not in kept}:
            await self._cluster.merge(self._manifest(dropped))
        return "".join(f"{published[key].strip()}\n" for key in kept)


class CaBundle:
    """The joined file in the namespaces in use; for one term of the leader."""

    def __init__(self, cluster: Cluster, cache: Cache, read: Read) -> None:
        self._cluster = cluster
        self._cache = cache
        self._read = read
        self._text: str | None = None
        self._written: dict[str, str] = {}
        # of many passes at once the first reads or writes, and the others wait for it
        self._reading = asyncio.Lock()
        self._writing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def run(self) -> None:
        """Keeps the file in all namespaces in use up to date until cancelled."""
        while True:
            try:
                self._text = await self._read()
            except OperatorError as error:
                LOG.warning("the progress certificates cannot be read: %s", error)
            else:
                for namespace in self._in_use():
                    await self._keep(namespace)
            await asyncio.sleep(LOOK_SECONDS)

    async def _keep(self, namespace: str) -> None:
        """Writes the file if it can; trouble in one namespace costs no other its live progress."""
        try:
            await self.ensure(namespace)
        except OperatorError as error:
            LOG.warning("the progress certificates cannot be written to namespace %s: %s", namespace, error)

    def _in_use(self) -> list[str]:
        return sorted({run.namespace for run in self._cache.runs() if stage_in_flight(run.status)})

    async def ensure(self, namespace: str) -> None:
        """Writes the file to a namespace, once in a term and when it has changed."""
        async with self._reading:
            if self._text is None:
                self._text = await self._read()
        async with self._writing[namespace]:
            await self._write(namespace, self._text)

    async def _write(self, namespace: str, text: str) -> None:
        if self._written.get(namespace) == text:
            return
        try:
            # applied unseen: reading it would take a right to read every ConfigMap of the namespace
            metadata = {"name": CA_CONFIG_MAP, "namespace": namespace, "labels": {MANAGED_BY_LABEL: MANAGER}}
            await self._cluster.apply(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {CA_KEY: text}}
            )
        except RefusedError as error:
            LOG.warning("no live progress in namespace %s: %s", namespace, error)
        self._written[namespace] = text

    def forget(self, namespace: str) -> None:
        """The namespace may have gone, and one of the same name starts without the file."""
        self._written.pop(namespace, None)
        self._writing.pop(namespace, None)


def _not_before(pem: str) -> float:
    """When a certificate began to be valid; 0 for what is none."""
    try:
        return x509.load_pem_x509_certificate(pem.encode()).not_valid_before_utc.timestamp()
    except ValueError:
        return 0.0
