"""Whole pipelines, with the operator killed after every single write."""

import asyncio
import contextlib

import pytest
from tests.support.operator.builders import NAMESPACE, later, manifest
from tests.support.operator.fake_cluster import CrashError
from tests.support.operator.world import FIRST_JOBS, PIPELINE, World, apply_pipeline, run_pipeline, undisturbed

from hatchery_api.conditions import Reason
from hatchery_api.contract import ExitCode, Report
from hatchery_operator.domain.objects import Key
from hatchery_operator.errors import ConflictError


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
