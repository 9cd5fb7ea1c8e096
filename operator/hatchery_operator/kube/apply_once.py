"""One object per namespace, applied when the namespace first needs it and again when its content changes."""

import asyncio
import logging
from collections import defaultdict
from typing import Final

from hatchery_operator.domain.objects import Manifest
from hatchery_operator.errors import RefusedError
from hatchery_operator.kube.client import Cluster

LOG: Final = logging.getLogger(__name__)


class ApplyOnce:
    """Server-side-applies one object per namespace, whatever an earlier operator wrote there.

    Of several concurrent callers for a namespace the first writes, and the others wait for it.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._applied: dict[str, Manifest] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def ensure(self, manifest: Manifest, *, lacking: str = "") -> None:
        """Applies an object unless its namespace already has this content.

        `lacking` says what the namespace does without while the object is rejected: the rejection is then logged, and
        not tried again before the content changes. Empty for an object that must exist.

        Raises:
            RefusedError: the API server rejects an object that must exist.
        """
        namespace = manifest["metadata"]["namespace"]
        async with self._locks[namespace]:
            if self._applied.get(namespace) == manifest:
                return
            try:
                await self._cluster.apply(manifest)
            except RefusedError as error:
                if not lacking:
                    raise
                LOG.warning("no %s in namespace %s: %s", lacking, namespace, error)
            self._applied[namespace] = manifest

    def forget(self, namespace: str) -> None:
        """Forgets a namespace that may be gone: one of the same name starts without the object."""
        self._applied.pop(namespace, None)
        self._locks.pop(namespace, None)
