"""The progress endpoint with all that belongs to it, on every replica: certificate, receiver and writer."""

import asyncio
import logging
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from hatchery_operator.domain.objects import Key
from hatchery_operator.kube.cache import Cache
from hatchery_operator.kube.client import Cluster
from hatchery_operator.progress.auth import ProgressAccess
from hatchery_operator.progress.receiver import ProgressReceiver
from hatchery_operator.progress.tls import (
    CaBundle,
    Certificate,
    ReplicaCertificates,
    make_certificate,
    read_certificate,
)
from hatchery_operator.progress.writer import ProgressWriter
from hatchery_operator.settings import Settings, SettingsError, own_namespace, replica_name

LOG: Final = logging.getLogger(__name__)

RELOAD_SECONDS: Final = 60.0
"""Time between two looks at a mounted certificate."""


class ProgressService:
    """Takes the pods' reports and shows them."""

    def __init__(self, cluster: Cluster, cache: Cache, settings: Settings) -> None:
        """Takes its parts, and reads or makes the certificate.

        Raises:
            SettingsError: the certificate's folder or the operator's namespace cannot be read.
        """
        self._cluster = cluster
        self._cache = cache
        self._port = settings.progress.port
        self._folder = Path(settings.progress.certificate) if settings.progress.certificate else None
        self._certificate = _mounted(self._folder) if self._folder else _made(settings)
        self._replicas: ReplicaCertificates | None = None
        if self._folder is None:
            self._replicas = ReplicaCertificates(
                cluster,
                own_namespace(settings),
                f"{settings.operator_name}-progress",
                replica_name(),
                self._certificate.ca_pem,
            )
        access = ProgressAccess(cluster, time.monotonic)
        self._writer = ProgressWriter(cluster, cache)
        self._receiver = ProgressReceiver(access.identify, access.pod_labels, self._writer.take)

    def bundle(self) -> CaBundle:
        """What the leader does for one term so that pods can verify every replica."""
        return CaBundle(self._cluster, self._cache, self._replicas.joined if self._replicas else self._own)

    def notice(self, key: Key) -> None:
        """Something about a resource may have changed."""
        self._writer.notice(key)

    async def run(self) -> None:
        """Serves until cancelled."""
        context = self._certificate.server_context()
        await self._receiver.start(self._port, context)
        keep = self._replicas.keep_published() if self._replicas else self._reload(context)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._writer.run())
                tasks.create_task(keep)
        finally:
            await self._receiver.stop()

    async def _own(self) -> str:
        return self._certificate.ca_pem

    async def _reload(self, context: ssl.SSLContext) -> None:
        """Takes a certificate that was renewed; a broken one is left alone until it is repaired."""
        while self._folder:
            await asyncio.sleep(RELOAD_SECONDS)
            try:
                found = read_certificate(self._folder)
                if found != self._certificate:
                    found.load_into(context)
                    self._certificate = found
            except (OSError, ValueError) as error:
                LOG.warning("the renewed progress certificate in %s cannot be used: %s", self._folder, error)


def _made(settings: Settings) -> Certificate:
    host = urlsplit(settings.progress.service_url or "").hostname
    return make_certificate([host] if host else [], datetime.now(UTC))


def _mounted(folder: Path) -> Certificate:
    try:
        certificate = read_certificate(folder)
        certificate.server_context()
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"progress.certificate: tls.crt, tls.key and ca.crt in {folder} cannot be used: {error}"
        ) from error
    return certificate
