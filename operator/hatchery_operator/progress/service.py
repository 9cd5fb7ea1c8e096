"""The progress endpoint of one replica: certificate, receiver and writer, wired together."""

import asyncio
import logging
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from hatchery_operator.domain.objects import Key
from hatchery_operator.kube import Cache, Cluster
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
"""Interval at which a mounted certificate is read again."""


class ProgressService:
    """Receives the pods' progress reports and writes them to the status; runs on every replica."""

    def __init__(self, cluster: Cluster, cache: Cache, settings: Settings) -> None:
        """Reads or generates the certificate.

        Raises:
            SettingsError: the certificate's folder or the operator's namespace is not readable.
        """
        self._cluster = cluster
        self._cache = cache
        self._port = settings.progress.port
        self._folder = Path(settings.progress.certificate) if settings.progress.certificate else None
        self._certificate = _mounted(self._folder) if self._folder else _generated(settings)
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
        """The CA bundle that the leader keeps in the namespaces during one term."""
        return CaBundle(self._cluster, self._cache, self._replicas.joined if self._replicas else self._own)

    def notice(self, key: Key) -> None:
        """Notes a change of a resource in the cache."""
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
        """Reloads a renewed certificate; keeps the current one while the renewed one is invalid."""
        while self._folder:
            await asyncio.sleep(RELOAD_SECONDS)
            try:
                found = read_certificate(self._folder)
                if found != self._certificate:
                    found.load_into(context)
                    self._certificate = found
            except (OSError, ValueError) as error:
                LOG.warning("cannot use the renewed progress certificate in %s: %s", self._folder, error)


def _generated(settings: Settings) -> Certificate:
    host = urlsplit(settings.progress.service_url or "").hostname
    return make_certificate([host] if host else [], datetime.now(UTC))


def _mounted(folder: Path) -> Certificate:
    try:
        certificate = read_certificate(folder)
        certificate.server_context()
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"progress.certificate: cannot use tls.crt, tls.key and ca.crt in {folder}: {error}"
        ) from error
    return certificate
