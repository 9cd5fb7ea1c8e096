"""An operator over an in-memory cluster, stepped by the test; a restart keeps the cluster and nothing else."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from tests.support.operator.builders import NAMESPACE, NOW, manifest
from tests.support.operator.fake_cluster import FakeCluster

from hatchery_operator.controller.handlers import on_job_event, on_run_event
from hatchery_operator.controller.observe import referenced_keys
from hatchery_operator.controller.reconciler import Reconciler
from hatchery_operator.domain.objects import Key
from hatchery_operator.kube.cache import Cache
from hatchery_operator.kube.client import Cluster
from hatchery_operator.kube.crd_check import CrdCheck
from hatchery_operator.kube.resync import Resync
from hatchery_operator.progress.tls import CaBundle
from hatchery_operator.settings import Settings
from hatchery_operator.telemetry.health import Pulse
from hatchery_operator.telemetry.metrics import Metrics

PIPELINE = (("CorpusBuild", "corpus"), ("TokenizerBuild", "tokenizer"), ("PretrainRun", "model"), ("EvalRun", "eval"))
FIRST_JOBS = ("corpus-build-a1", "tokenizer-vocabulary-a1", "model-encode-a1", "model-train-a1", "eval-evaluate-a1")


class World:
    """An operator over an in-memory cluster; `restart` keeps the cluster and nothing else."""

    def __init__(
        self,
        cluster: FakeCluster | None = None,
        authorities: str = "",
        namespaces: Sequence[str] = (),
        settings: Settings | None = None,
    ) -> None:
        self.cluster = cluster or FakeCluster()
        self.now: datetime = NOW
        self.authorities = authorities
        self.namespaces = list(namespaces)
        self.settings = settings or Settings()
        self.restart()

    def restart(self) -> None:
        self.cache, self.woken = Cache(referenced_keys), set[Key]()
        self.cluster.crash_after = None
        self.metrics = Metrics()
        self.crd_check = CrdCheck(cast("Cluster", self.cluster), self.metrics.crd_outdated)
        self.reconcile = Reconciler(
            cast("Cluster", self.cluster),
            self.cache,
            self.settings,
            metrics=self.metrics,
            crd_check=self.crd_check,
            now=lambda: self.now,
            wake=self.woken.add,
            ca_bundle=CaBundle(cast("Cluster", self.cluster), self.cache, self._read) if self.authorities else None,
        )
        self.pulse = Pulse(lambda: 0.0, lambda: 0.0, last_beat=0.0)
        self.resync = Resync(
            cast("Cluster", self.cluster),
            self.cache,
            namespaces=self.namespaces,
            check_crds=self.crd_check.check,
            report=self._resynced,
            wake=self.woken.add,
        )

    def _resynced(self, missed: list[str]) -> None:
        self.metrics.resynced(missed)
        self.pulse.resynced(len(missed))

    async def _read(self) -> str:
        return self.authorities

    def tell(self) -> None:
        """Delivers the current state through the watches."""
        for found in list(self.cluster.objects.values()):
            event = {"type": "MODIFIED", "object": found}
            if found["kind"] == "Job":
                on_job_event(self.cache, event)
            elif found["apiVersion"].startswith("hatchery"):
                on_run_event(self.cache, event)

    def settle(self) -> None:
        """Reconciles all resources until no reconcile writes anything or asks to continue."""
        for _ in range(20):
            before = len(self.cluster.writes)
            self.tell()
            goes_on = asyncio.run(self._pass_over_all())
            if len(self.cluster.writes) == before and not goes_on:
                return
        raise AssertionError(f"it never settles: {self.cluster.writes[-8:]}")

    async def _pass_over_all(self) -> bool:
        return 0.0 in [await self.reconcile(key) for key in self.cache.all_keys()]

    def status(self, kind: str, name: str) -> dict[str, Any]:
        return self.cluster.objects[kind, NAMESPACE, name].get("status", {})

    def reason(self, kind: str, name: str, condition: str = "Succeeded") -> tuple[str, str]:
        found = next(c for c in self.status(kind, name)["conditions"] if c["type"] == condition)
        return found["status"], found["reason"]

    def message(self, kind: str, name: str) -> str:
        return next(c for c in self.status(kind, name)["conditions"] if c["type"] == "Succeeded")["message"]

    def jobs_created(self) -> list[str]:
        return [write.split()[-1] for write in self.cluster.writes if write.startswith("create Job")]


def apply_pipeline(world: World, order: tuple[tuple[str, str], ...] = PIPELINE) -> None:
    for kind, name in order:
        world.cluster.add(manifest(kind, name))


def play_kubelet(world: World) -> bool:
    """Lets the oldest unfinished Job start or end; returns whether there was one."""
    for name, job in sorted(world.cluster.of("Job").items()):
        if "conditions" in job.get("status", {}):
            continue
        if "status" in job:
            world.cluster.end_job(name)
        else:
            world.cluster.run_pods(name)
        return True
    return False


def run_pipeline(world: World) -> None:
    world.settle()
    while play_kubelet(world):
        world.settle()


def undisturbed() -> World:
    world = World()
    apply_pipeline(world)
    run_pipeline(world)
    return world
