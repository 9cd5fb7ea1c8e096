"""The order in which things are done, against an API server in memory, with the operator dying at every single write."""

import asyncio
import contextlib
import copy
import io
import itertools
import json
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, cast

import pytest
from tests.support.operator.builders import NAMESPACE, NOW, later, manifest
from tests.support.operator.fake_cluster import CrashError, FakeCluster

from hatchery_api.conditions import Reason
from hatchery_api.contract import ExitCode, Report
from hatchery_operator.controller.handlers import take_job, take_run
from hatchery_operator.controller.observe import referenced_keys
from hatchery_operator.controller.reconciler import Reconciler
from hatchery_operator.domain import Key, Manifest, rfc3339
from hatchery_operator.errors import ApiError, ConflictError, GoneError, RefusedError, UnreachableError
from hatchery_operator.kube.cache import Cache
from hatchery_operator.kube.client import Cluster
from hatchery_operator.kube.crd_check import CrdCheck
from hatchery_operator.kube.resync import Resync
from hatchery_operator.progress.tls import CaBundle
from hatchery_operator.settings import Settings
from hatchery_operator.telemetry.health import Pulse
from hatchery_operator.telemetry.logs import JsonFormatter
from hatchery_operator.telemetry.metrics import Metrics

PIPELINE = (("CorpusBuild", "corpus"), ("TokenizerBuild", "tokenizer"), ("PretrainRun", "model"), ("EvalRun", "eval"))
FIRST_JOBS = ("corpus-build-a1", "tokenizer-vocabulary-a1", "model-encode-a1", "model-train-a1", "eval-evaluate-a1")


class World:
    """An operator over a cluster in memory; `restart` is what a kill leaves: the cluster and nothing else."""

    def __init__(
        self, cluster: FakeCluster | None = None, authorities: str = "", namespaces: Sequence[str] = ()
    ) -> None:
        self.cluster = cluster or FakeCluster()
        self.now: datetime = NOW
        self.authorities = authorities
        self.namespaces = list(namespaces)
        self.restart()

    def restart(self) -> None:
        self.cache, self.woken = Cache(referenced_keys), set[Key]()
        self.cluster.crash_after = None
        self.metrics = Metrics()
        self.crd_check = CrdCheck(cast("Cluster", self.cluster), self.metrics.crd_outdated)
        self.reconcile = Reconciler(
            cast("Cluster", self.cluster),
            self.cache,
            Settings(),
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
        """The watches tell all there is."""
        for found in list(self.cluster.objects.values()):
            event = {"type": "MODIFIED", "object": found}
            if found["kind"] == "Job":
                take_job(self.cache, event)
            elif found["apiVersion"].startswith("hatchery"):
                take_run(self.cache, event)

    def settle(self) -> None:
        """Passes over all resources until no pass writes anything and none wants to go on."""
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
    """Lets the oldest unfinished Job run or end; says whether there was one."""
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


@pytest.mark.parametrize("order", [PIPELINE, PIPELINE[::-1]], ids=["in order", "reversed"])
def test_a_pipeline_applied_at_once_runs_stage_by_stage(order: tuple[tuple[str, str], ...]) -> None:
    world = World()
    apply_pipeline(world, order)
    run_pipeline(world)
    assert world.jobs_created() == list(FIRST_JOBS)
    for kind, name in PIPELINE:
        assert world.reason(kind, name) == ("True", "Completed")
    roles = {record["role"]: record["digest"] for record in world.status("EvalRun", "eval")["inputs"]}
    assert roles == {"model": "d-model-train-a1", "corpus-ppl": "d-corpus-build-a1"}


def undisturbed() -> World:
    world = World()
    apply_pipeline(world)
    run_pipeline(world)
    return world


WRITES = len(undisturbed().cluster.writes)


@pytest.mark.parametrize("write", range(1, WRITES + 1))
def test_an_operator_killed_after_any_write_leaves_the_same_end_and_no_second_job(write: int) -> None:
    world = World()
    apply_pipeline(world)
    world.cluster.crash_after = write
    with pytest.raises(CrashError):
        run_pipeline(world)
    world.restart()
    run_pipeline(world)
    assert sorted(world.jobs_created()) == sorted(FIRST_JOBS)
    for kind, name in PIPELINE:
        assert world.reason(kind, name) == ("True", "Completed")
        assert world.status(kind, name)["attempts"] == (2 if kind == "PretrainRun" else 1)
        assert world.status(kind, name)["failures"] == 0


def test_a_restart_over_finished_runs_writes_nothing() -> None:
    world = undisturbed()
    before = len(world.cluster.writes)
    world.restart()
    world.settle()
    assert len(world.cluster.writes) == before


def test_finished_runs_whose_children_are_deleted_stay_as_they_are() -> None:
    world = undisturbed()
    for address in [a for a in world.cluster.objects if a[0] in ("Job", "Pod")]:
        del world.cluster.objects[address]
    before = len(world.cluster.writes)
    world.restart()
    world.settle()
    world.now = later(1_000_000)
    world.settle()
    assert world.cluster.writes[before:] == []


def test_the_budget_survives_restarts_and_deleted_jobs() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus", retry={"maxAttempts": 3, "backoff": "30s"}))
    for attempt in (1, 2, 3):
        world.settle()
        world.cluster.end_job(f"corpus-build-a{attempt}", Report(reason=Reason.STORAGE_ERROR, message="full"), 75)
        world.settle()
        del world.cluster.objects["Job", NAMESPACE, f"corpus-build-a{attempt}"]
        world.restart()
        world.now = later(1000 * attempt)
    world.settle()
    assert world.reason("CorpusBuild", "corpus") == ("False", "StorageError")
    assert world.jobs_created() == ["corpus-build-a1", "corpus-build-a2", "corpus-build-a3"]
    assert world.status("CorpusBuild", "corpus")["failures"] == 3


def test_a_permanent_error_makes_no_second_job() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()
    report = Report(reason=Reason.SOURCE_NOT_FOUND, message="nothing matches /data/*.py")
    world.cluster.end_job("corpus-build-a1", report, ExitCode.SPEC_ERROR)
    world.settle()
    assert world.reason("CorpusBuild", "corpus") == ("False", "SourceNotFound")
    assert world.jobs_created() == ["corpus-build-a1"]


def test_a_job_too_new_for_the_cache_is_found_and_not_charged() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()
    world.cluster.run_pods("corpus-build-a1")
    world.settle()
    world.restart()
    key = Key("CorpusBuild", NAMESPACE, "corpus")
    world.cache.put(world.cluster.objects[key])
    asyncio.run(world.reconcile(key))
    assert world.status("CorpusBuild", "corpus")["failures"] == 0


def test_of_many_at_once_each_has_its_first_status_before_any_has_a_job() -> None:
    world = World()
    for number in range(5):
        world.cluster.add(manifest("CorpusBuild", f"c{number}"))
    world.settle()
    kinds = [write.split()[1] for write in world.cluster.writes]
    assert [kind for kind in kinds if kind != "NetworkPolicy"] == ["CorpusBuild"] * 5 + ["Job"] * 5


def test_a_job_is_created_without_a_question_when_nothing_has_changed_since_its_status() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.tell()
    key, asked = Key("CorpusBuild", NAMESPACE, "corpus"), list[str]()
    assert asyncio.run(world.reconcile(key)) == 0.0
    ask = world.cluster.get

    async def get(kind: str, namespace: str, name: str) -> Manifest | None:
        asked.append(name)
        return await ask(kind, namespace, name)

    world.cluster.get = get  # type: ignore[method-assign]
    asyncio.run(world.reconcile(key))
    assert (world.jobs_created(), asked) == (["corpus-build-a1"], [])


def test_a_job_is_not_created_when_its_run_is_suspended_after_its_status() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.tell()
    key = Key("CorpusBuild", NAMESPACE, "corpus")
    asyncio.run(world.reconcile(key))
    stored = world.cluster.objects[key]
    world.cluster.put({**stored, "spec": {**stored["spec"], "suspend": True}})
    world.settle()
    assert world.jobs_created() == []
    assert world.reason("CorpusBuild", "corpus", "Suspended")[0] == "True"


def test_two_operators_at_once_make_one_job() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    other = World(world.cluster)
    world.tell()
    other.tell()
    key = Key("CorpusBuild", NAMESPACE, "corpus")
    for _ in range(4):
        for one in (world, other):
            with contextlib.suppress(ConflictError):
                asyncio.run(one.reconcile(key))
    assert world.jobs_created() == ["corpus-build-a1"]
    assert world.status("CorpusBuild", "corpus")["attempts"] == 1


def foreign_job(owner_uid: str | None) -> Manifest:
    owners = [{"uid": owner_uid, "controller": True}] if owner_uid else []
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "corpus-build-a1", "namespace": NAMESPACE, "uid": "theirs", "ownerReferences": owners},
        "spec": {"mine": True},
    }


@pytest.mark.parametrize("owner_uid", [None, "a deleted run"])
def test_a_job_of_somebody_else_is_neither_adopted_nor_changed(owner_uid: str | None) -> None:
    world = World()
    world.cluster.put(foreign_job(owner_uid))
    before = dict(world.cluster.objects["Job", NAMESPACE, "corpus-build-a1"])
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()
    assert world.reason("CorpusBuild", "corpus") == ("Unknown", "NameConflict")
    assert "Job corpus-build-a1 exists" in world.message("CorpusBuild", "corpus")
    assert world.cluster.objects["Job", NAMESPACE, "corpus-build-a1"] == before

    del world.cluster.objects["Job", NAMESPACE, "corpus-build-a1"]
    world.now = later(60)
    world.settle()
    assert world.reason("CorpusBuild", "corpus") == ("Unknown", "Pending")
    assert world.status("CorpusBuild", "corpus")["attempts"] == 1


@pytest.mark.parametrize(("status", "reason"), [(403, "PodRefused"), (422, "InvalidSpec")])
def test_a_job_the_api_server_refuses_is_said_with_its_words(status: int, reason: str) -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))

    def refuse(verb: str, target: Manifest) -> ApiError | None:
        return RefusedError("POST", "exceeded quota: jobs", status) if target["kind"] == "Job" else None

    world.cluster.refuse = refuse
    world.settle()
    assert world.reason("CorpusBuild", "corpus") == ("Unknown", reason)
    assert world.reason("CorpusBuild", "corpus", "Degraded") == ("True", reason)
    assert "exceeded quota" in world.message("CorpusBuild", "corpus")
    world.cluster.refuse = lambda _verb, _target: None
    world.now = later(60)
    world.settle()
    assert world.reason("CorpusBuild", "corpus", "Degraded") == ("False", "UpToDate")
    assert world.jobs_created() == ["corpus-build-a1"]


def test_events_and_changing_reasons_do_not_make_a_refused_job_be_tried_without_pause() -> None:
    world, tries = World(), 0
    world.cluster.add(manifest("CorpusBuild", "corpus"))

    def refuse(_: str, target: Manifest) -> ApiError | None:
        nonlocal tries
        tries += target["kind"] == "Job"
        return RefusedError("POST", "no", (403, 422)[tries % 2]) if target["kind"] == "Job" else None

    world.cluster.refuse = refuse
    for tenth in range(600):
        world.now = later(tenth / 10)
        world.settle()
    assert 6 <= tries <= 9
    assert world.status("CorpusBuild", "corpus")["attempts"] == 1


def test_pods_that_are_refused_are_found_in_the_events_of_the_job() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()
    uid = world.cluster.of("Job")["corpus-build-a1"]["metadata"]["uid"]
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": NAMESPACE},
        "involvedObject": {"uid": uid},
        "reason": "FailedCreate",
        "message": "violates PodSecurity",
    }
    world.cluster.put(event)
    world.now = later(6)
    world.settle()
    assert world.reason("CorpusBuild", "corpus") == ("Unknown", "PodRefused")
    assert "violates PodSecurity" in world.message("CorpusBuild", "corpus")


def test_a_plan_made_from_an_old_version_is_not_written() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.tell()
    key = Key("CorpusBuild", NAMESPACE, "corpus")
    stored = world.cluster.objects[key]
    world.cluster.put({**stored, "spec": {**stored["spec"], "suspend": True}})
    with pytest.raises(ConflictError):
        asyncio.run(world.reconcile(key))
    assert world.jobs_created() == []
    asyncio.run(world.reconcile(key))
    assert world.reason("CorpusBuild", "corpus") == ("Unknown", "Suspended")


def test_a_resource_deleted_meanwhile_is_forgotten() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.tell()
    key = Key("CorpusBuild", NAMESPACE, "corpus")
    del world.cluster.objects[key]
    assert asyncio.run(world.reconcile(key)) is None
    assert world.cache.get(key) is None
    assert world.cluster.of("Job") == {}


def test_a_resource_made_again_under_the_same_name_starts_from_nothing() -> None:
    world = undisturbed()
    key = Key("CorpusBuild", NAMESPACE, "corpus")
    del world.cluster.objects[key]
    for address in [a for a in world.cluster.objects if "corpus-build" in a[2]]:
        del world.cluster.objects[address]
    take_run(world.cache, {"type": "DELETED", "object": {**manifest(*PIPELINE[0], version=10_000)}})
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()
    assert world.status("CorpusBuild", "corpus")["attempts"] == 1
    assert world.jobs_created().count("corpus-build-a1") == 2


def test_an_error_of_the_api_server_is_raised_for_the_queue_to_back_off() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.tell()
    world.cluster.refuse = lambda _verb, _target: UnreachableError("PATCH", "no answer")
    with pytest.raises(UnreachableError):
        asyncio.run(world.reconcile(Key("CorpusBuild", NAMESPACE, "corpus")))
    text = world.metrics.text().decode()
    assert 'hatchery_reconcile_total{kind="CorpusBuild",result="error"} 1.0' in text


def test_finishing_wakes_those_who_wait() -> None:
    world = World()
    apply_pipeline(world)
    world.settle()
    world.cluster.end_job("corpus-build-a1")
    world.tell()
    world.woken.clear()
    asyncio.run(world.reconcile(Key("CorpusBuild", NAMESPACE, "corpus")))
    assert {key.name for key in world.woken} == {"tokenizer", "model", "eval"}


def test_suspending_holds_the_job_by_a_field_manager_of_its_own() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()
    stored = world.cluster.objects["CorpusBuild", NAMESPACE, "corpus"]
    world.cluster.put({**stored, "spec": {**stored["spec"], "suspend": True}})
    world.settle()
    job = world.cluster.of("Job")["corpus-build-a1"]
    assert job["spec"]["suspend"] is True
    assert job["spec"]["template"]
    assert world.reason("CorpusBuild", "corpus", "Suspended")[0] == "True"
    stored = world.cluster.objects["CorpusBuild", NAMESPACE, "corpus"]
    world.cluster.put({**stored, "spec": {**stored["spec"], "suspend": False}})
    world.settle()
    assert world.cluster.of("Job")["corpus-build-a1"]["spec"]["suspend"] is False
    assert world.jobs_created() == ["corpus-build-a1"]


def test_children_go_after_their_time_and_the_resource_stays() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus", ttlSecondsAfterFinished=60))
    world.settle()
    world.cluster.end_job("corpus-build-a1")
    world.settle()
    assert "corpus-build-a1" in world.cluster.of("Job")
    world.now = later(61)
    world.settle()
    assert world.cluster.of("Job") == {}
    assert world.reason("CorpusBuild", "corpus") == ("True", "Completed")


def test_what_only_has_the_name_of_a_child_is_spared_when_children_go() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus", ttlSecondsAfterFinished=0))
    theirs = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "corpus-build-a1", "namespace": NAMESPACE}}
    asyncio.run(world.cluster.create(theirs))
    world.settle()
    world.cluster.end_job("corpus-build-a1")
    world.settle()
    assert world.cluster.of("Job") == {}
    assert list(world.cluster.of("Service")) == ["corpus-build-a1"]


def test_the_certificates_are_in_a_namespace_before_its_first_pods_and_written_once() -> None:
    world = World(authorities="PEM")
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()
    kinds = [write for write in world.cluster.writes if "hatchery-progress-ca" in write or "Job" in write]
    assert kinds == ["apply ConfigMap hatchery-progress-ca", "create Job corpus-build-a1"]
    assert world.cluster.of("ConfigMap")["hatchery-progress-ca"]["data"] == {"ca.crt": "PEM"}


def run_in_a_namespace_made_twice(world: World) -> None:
    """A run in a namespace that is deleted with all in it, and one in the next namespace of that name."""
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()
    key = Key("CorpusBuild", NAMESPACE, "corpus")
    world.cluster.objects.clear()
    world.cache.remove(key)
    asyncio.run(world.reconcile(key))
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()


def test_a_namespace_that_was_deleted_and_made_again_gets_the_certificates_again() -> None:
    world = World(authorities="PEM")
    run_in_a_namespace_made_twice(world)
    assert "hatchery-progress-ca" in world.cluster.of("ConfigMap")


def policies_and_jobs(world: World) -> list[str]:
    return [write for write in world.cluster.writes if "NetworkPolicy" in write or "Job" in write]


def test_a_namespace_is_closed_before_its_first_pods_and_once() -> None:
    world = World()
    for name in ("corpus", "other"):
        world.cluster.add(manifest("CorpusBuild", name))
    world.settle()
    assert policies_and_jobs(world) == [
        "apply NetworkPolicy hatchery-runs",
        "create Job corpus-build-a1",
        "create Job other-build-a1",
    ]


def test_a_namespace_that_was_deleted_and_made_again_is_closed_again() -> None:
    world = World()
    run_in_a_namespace_made_twice(world)
    assert "hatchery-runs" in world.cluster.of("NetworkPolicy")


def test_no_pod_starts_in_a_namespace_that_cannot_be_closed() -> None:
    world = World()

    def no_policies(_: str, written: Manifest) -> ApiError | None:
        return RefusedError("apply", "exceeded quota", 403) if written["kind"] == "NetworkPolicy" else None

    world.cluster.refuse = no_policies
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()
    assert world.cluster.of("Job") == {}
    assert "exceeded quota" in world.message("CorpusBuild", "corpus")
    world.cluster.refuse = lambda *_: None
    world.now = later(600)
    world.settle()
    assert policies_and_jobs(world) == ["apply NetworkPolicy hatchery-runs", "create Job corpus-build-a1"]


def test_a_gang_is_open_to_itself_before_its_pods_start() -> None:
    world = World()
    apply_pipeline(world, PIPELINE[:2])
    world.cluster.add(manifest("PretrainRun", "model", parallelism={"nodes": 2}))
    run_pipeline(world)
    kinds = [write.split()[1] for write in world.cluster.writes if write.endswith(" model-train-a1")]
    assert kinds == ["Service", "NetworkPolicy", "Job"]


def test_a_resync_finds_what_watches_have_missed() -> None:
    world = undisturbed()
    fresh = World(world.cluster)
    asyncio.run(fresh.resync.load())
    assert {key.name for key in fresh.cache.all_keys()} == {"corpus", "tokenizer", "model", "eval"}
    assert {job.name for job in fresh.cache.jobs()} == set(FIRST_JOBS)

    del world.cluster.objects["EvalRun", NAMESPACE, "eval"]
    del world.cluster.objects["Job", NAMESPACE, "eval-evaluate-a1"]
    corpus = world.cluster.objects["CorpusBuild", NAMESPACE, "corpus"]
    world.cluster.put({**corpus, "metadata": {**corpus["metadata"], "generation": 7}})
    rounds = 0

    async def sleep(_: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(fresh.resync.run(300, sleep))
    key = Key("CorpusBuild", NAMESPACE, "corpus")
    run = fresh.cache.get(key)
    assert run
    assert run.generation == 7
    assert fresh.cache.get(Key("EvalRun", NAMESPACE, "eval")) is None
    assert "eval-evaluate-a1" not in {job.name for job in fresh.cache.jobs()}
    assert {key, Key("EvalRun", NAMESPACE, "eval"), Key("PretrainRun", NAMESPACE, "model")} <= fresh.woken
    text = fresh.metrics.text().decode()
    assert "hatchery_watch_missed_total 3.0" in text, "a changed run, a deleted run, a deleted Job"


def resync_once(world: World, meanwhile: Callable[[], None] = lambda: None) -> None:
    """One listing and the merge that follows it; `meanwhile` is what happens in between."""
    rounds = 0

    async def sleep(_: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 2:
            meanwhile()
        if rounds == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(world.resync.run(300, sleep))


def test_what_is_deleted_while_a_listing_is_merged_does_not_come_back() -> None:
    world = undisturbed()
    asyncio.run(world.resync.load())
    gone = [("EvalRun", NAMESPACE, "eval"), ("Job", NAMESPACE, "eval-evaluate-a1")]
    for address in gone:
        # the listing is ahead of the watch
        world.cluster.put(world.cluster.objects[address])

    def delete() -> None:
        run, job = (world.cluster.objects.pop(address) for address in gone)
        take_run(world.cache, {"type": "DELETED", "object": run})
        take_job(world.cache, {"type": "DELETED", "object": job})

    resync_once(world, delete)
    assert world.cache.get(Key(*gone[0])) is None
    assert gone[1][2] not in {job.name for job in world.cache.jobs()}
    assert world.pulse.misses == 0, "the watches have told all"


def test_a_resource_that_cannot_be_read_does_not_get_the_operator_restarted() -> None:
    world = World()
    broken = manifest("CorpusBuild", "corpus")
    world.cluster.add(broken)
    broken["status"] = {"attempts": "many"}
    world.cluster.put(broken)
    for _ in range(3):
        resync_once(world)
    assert world.cache.all_keys() == []
    assert world.pulse.misses == 0


class Forbidding(FakeCluster):
    """Some namespaces were deleted, and the operator's Roles with them."""

    def __init__(self) -> None:
        super().__init__()
        self.forbidden: set[str] = set()

    async def list(self, kind, namespace, labels="", fields=""):
        if namespace in self.forbidden:
            raise RefusedError(f"GET {kind}", f"cannot list in namespace {namespace}", 403)
        async for found in super().list(kind, namespace, labels, fields):
            yield found


def namespaced(*namespaces: str) -> tuple[World, Forbidding]:
    """An operator for some namespaces; in the last there is a run."""
    cluster = Forbidding()
    cluster.add(manifest("CorpusBuild", "corpus"))
    return World(cluster, namespaces=namespaces), cluster


def test_a_namespace_that_was_deleted_does_not_stop_the_others(caplog) -> None:
    world, cluster = namespaced("deleted", NAMESPACE)
    cluster.forbidden = {"deleted"}
    asyncio.run(world.resync.load())
    assert [key.name for key in world.cache.all_keys()] == ["corpus"]
    assert world.resync.forbidden == {"deleted"}
    resync_once(world)
    assert caplog.text.count("not serving namespace deleted") == 2


def test_resources_of_a_namespace_that_refuses_for_a_while_are_not_taken_for_deleted() -> None:
    world, cluster = namespaced("other", NAMESPACE)
    asyncio.run(world.resync.load())
    cluster.forbidden = {NAMESPACE}

    async def sleep(_: float) -> None:
        """The watches are those of the start, so the operator is to start afresh: the listings end by themselves."""

    asyncio.run(asyncio.wait_for(world.resync.run(300, sleep), 5))
    assert [key.name for key in world.cache.all_keys()] == ["corpus"]


def test_an_operator_that_may_list_nothing_at_all_waits_for_its_roles() -> None:
    world, cluster = namespaced(NAMESPACE)
    cluster.forbidden = {NAMESPACE}
    with pytest.raises(RefusedError):
        asyncio.run(world.resync.load())


def test_a_lost_event_is_no_reason_to_fail() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))

    create = world.cluster.create

    async def lose_events(target: Manifest) -> Manifest:
        if target["kind"] == "Event":
            raise GoneError("POST", "namespace is being deleted", 404)
        return await create(target)

    world.cluster.create = lose_events  # type: ignore[method-assign]
    world.settle()
    assert world.jobs_created() == ["corpus-build-a1"]


def test_an_outdated_definition_is_said_by_the_resources_and_taken_back_when_it_is_replaced() -> None:
    world = World()
    kind = world.cluster.schemas["dev.hatchery.v1alpha1.CorpusBuild"]
    newest, older = kind["properties"]["status"], copy.deepcopy(kind["properties"]["status"])
    del older["properties"]["splits"]
    kind["properties"]["status"] = older
    asyncio.run(world.crd_check.check())
    apply_pipeline(world)
    world.settle()
    assert world.reason("CorpusBuild", "corpus", "Degraded") == ("True", "CRDOutdated")
    assert world.reason("TokenizerBuild", "tokenizer", "Degraded") == ("False", "UpToDate")
    assert b'hatchery_crd_outdated{kind="CorpusBuild"} 1.0' in world.metrics.text()
    kind["properties"]["status"] = newest
    asyncio.run(world.crd_check.check())
    world.settle()
    assert world.reason("CorpusBuild", "corpus", "Degraded") == ("False", "UpToDate")
    assert b'hatchery_crd_outdated{kind="CorpusBuild"} 0.0' in world.metrics.text()


def test_every_line_of_every_pass_names_resource_attempt_and_pass() -> None:
    """Lines are read by machines: one that cannot be joined with its resource is lost among a thousand."""
    world, written = World(), io.StringIO()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("hatchery_operator")
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        world.settle()
        world.cluster.refuse = lambda verb, _: RefusedError("create", "no", 403) if verb == "create" else None
        world.cluster.add(manifest("CorpusBuild", "refused"))
        world.settle()
    finally:
        logger.removeHandler(handler)
        logger.setLevel("NOTSET")
    lines = [json.loads(text) for text in written.getvalue().splitlines()]
    assert {line["message"] for line in lines} >= {"status written", "child created", "child refused"}
    for line in lines:
        assert (line["kind"], line["namespace"]) == ("CorpusBuild", NAMESPACE)
        assert line["uid"] == world.cluster.objects["CorpusBuild", NAMESPACE, line["name"]]["metadata"]["uid"]
        assert len(line["reconcile"]) == 8
        assert isinstance(line["attempt"], int)
    [created] = [line for line in lines if line["message"] == "child created"]
    [counted, *_] = [line for line in lines if line["message"] == "status written" and line["name"] == created["name"]]
    assert (counted["attempt"], created["attempt"]) == (1, 1)
    assert counted["reconcile"] != created["reconcile"]


def image_states() -> Any:
    """What the kubelet says of an image that does not exist, for ever."""
    answer = 'failed to resolve reference "r/i:1": r/i:1: not found'
    return itertools.cycle(
        [
            {"reason": "ErrImagePull", "message": f"rpc error: code = NotFound desc = {answer}"},
            {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "r/i:1": ErrImagePull: {answer}'},
        ]
    )


def test_a_job_that_waits_for_a_day_is_explained_by_one_write() -> None:
    world, key = World(), Key("CorpusBuild", NAMESPACE, "corpus")
    world.cluster.add(manifest(*PIPELINE[0]))
    world.settle()
    job = world.cluster.of("Job")["corpus-build-a1"]
    world.cluster.put({**job, "status": {"active": 1, "ready": 0}})
    labels = {**job["spec"]["template"]["metadata"]["labels"], "batch.kubernetes.io/job-name": "corpus-build-a1"}
    metadata = {"name": "corpus-build-a1-0-x", "namespace": NAMESPACE, "labels": labels, "uid": "p"}
    metadata["creationTimestamp"] = rfc3339(NOW)
    before, looks, seconds, states = len(world.cluster.writes), 0, 0.0, image_states()
    while seconds < 86_400:
        status = {"phase": "Pending", "containerStatuses": [{"name": "main", "state": {"waiting": next(states)}}]}
        world.cluster.put({"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata}, "status": status})
        world.now = later(seconds)
        world.tell()
        seconds += asyncio.run(world.reconcile(key)) or 3600
        looks += 1
    assert world.reason("CorpusBuild", "corpus") == ("Unknown", "ImagePullError")
    assert world.cluster.writes[before:] == ["status CorpusBuild corpus"]
    assert 280 < looks < 310
