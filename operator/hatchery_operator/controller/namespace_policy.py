"""Keeps the policy of all runs' pods in every namespace where pods are about to start."""

import asyncio
from collections import defaultdict

from hatchery_operator.kube import Cluster
from hatchery_operator.manifests import runs_policy
from hatchery_operator.settings import Settings


class NamespacePolicy:
    """Writes the policy once to each namespace, over what an earlier operator wrote there."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._written: set[str] = set()
        # of many passes at once the first writes, and the others of its namespace wait for it
        self._writing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def ensure(self, namespace: str) -> None:
        """Writes the policy unless it was.

        Raises:
            RefusedError: the API server does not want it; the pods must then not start.
        """
        if not self._settings.network_policies.enabled or namespace in self._written:
            return
        async with self._writing[namespace]:
            if namespace not in self._written:
                await self._cluster.apply(runs_policy(namespace, self._settings))
                self._written.add(namespace)

    def forget(self, namespace: str) -> None:
        """With its last run the namespace itself may have gone; one of the same name starts without policy."""
        self._written.discard(namespace)
        self._writing.pop(namespace, None)
