"""Devices by name: how many processes share them, and which requests can never work."""

import itertools
from typing import Any

import pytest
from tests.support.operator.builders import NOW, by_key, finished, manifest, with_status
from tests.support.operator.plans import created

from hatchery_api.conditions import ConditionType, Reason, find_condition
from hatchery_api.status import StageStatus
from hatchery_operator.domain.attempt import Attempt
from hatchery_operator.domain.objects import Manifest, Observed, Run, parse_run
from hatchery_operator.manifests import manifests
from hatchery_operator.planning import plan
from hatchery_operator.settings import Settings
from hatchery_operator.stages import STAGES, misfit

ENCODE, TRAIN = STAGES["PretrainRun"]


def pretrain(wanted: Any = "auto", nodes: int = 1, **resources: Any) -> Run:
    return parse_run(
        manifest(
            "PretrainRun",
            parallelism={"nodes": nodes, "processesPerNode": wanted},
            placement={"resources": resources},
        )
    )


def container(run: Run, settings: Settings | None = None) -> Manifest:
    assert run.spec
    work = Attempt(run, run.spec, "train", 1, TRAIN.shape(run.spec))
    [made] = manifests(work, settings or Settings())[-1]["spec"]["template"]["spec"]["containers"]
    assert isinstance(made, dict)
    return made


def environment(run: Run, settings: Settings | None = None) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container(run, settings)["env"]}


def words(run: Run, settings: Settings | None = None) -> str:
    assert run.spec
    return misfit(STAGES["PretrainRun"], run.spec, settings or Settings())


WORKS = [
    # limits, processesPerNode, processes in a pod
    ({"nvidia.com/gpu": 8}, "auto", "8"),
    ({"nvidia.com/gpu": "2"}, "auto", "2"),
    ({"amd.com/gpu": 4}, "auto", "4"),
    ({"amd.com/gpu": 4}, 2, "2"),
    ({"gpu.vendor.example/gpu": 2}, "auto", "2"),
    ({"nvidia.com/mig-1g.10gb": 1}, "auto", "1"),
    ({"nvidia.com/mig-3g.40gb": "1"}, 1, "1"),
    ({"nvidia.com/mig-1g.10gb.me": 1}, "auto", "1"),
    ({"nvidia.com/mig-1c.2g.20gb": 1}, "auto", "1"),
    ({"nvidia.com/mig-1g.10gb": 2}, 1, "1"),
    ({"nvidia.com/gpu.shared": 1}, "auto", "1"),
    ({"nvidia.com/gpu": 1, "rdma/hca": 1, "vpc.amazonaws.com/efa": 4}, "auto", "1"),
    ({"cpu": 4}, "auto", "1"),
    ({"cpu": 4}, 4, "4"),
    ({"cpu": "500m", "memory": "1Gi"}, "auto", "1"),
    ({}, "auto", "1"),
    ({}, 3, "3"),
]


@pytest.mark.parametrize(("limits", "wanted", "processes"), WORKS)
def test_a_process_for_each_device_or_one_with_all_processors(limits: Any, wanted: Any, processes: str) -> None:
    run = pretrain(wanted, limits=limits)
    assert words(run) == ""
    assert environment(run)["HATCHERY_PROCESSES_PER_NODE"] == processes


@pytest.mark.parametrize(("limits", "wanted", "processes"), WORKS)
def test_which_devices_a_pod_sees_is_left_to_the_device_plugin(limits: Any, wanted: Any, processes: str) -> None:
    run = pretrain(wanted, limits=limits)
    assert not [name for name in environment(run) if name.endswith("_VISIBLE_DEVICES")]
    assert container(run)["resources"].get("limits", {}) == {name: str(amount) for name, amount in limits.items()}


NEVER = [
    # resources, processesPerNode, what the condition says
    ({"limits": {"nvidia.com/mig-1g.10gb": 2}}, "auto", "slices of a GPU (nvidia.com/mig-1g.10gb: 2)"),
    ({"limits": {"nvidia.com/mig-1g.10gb": 1}}, 2, "request one slice, or whole GPUs"),
    ({"limits": {"nvidia.com/gpu.shared": 2}}, "auto", "slices of a GPU"),
    ({"limits": {"nvidia.com/mig-large": 1}}, "auto", "is not a MIG profile"),
    ({"limits": {"nvidia.com/gpu": 2}}, 4, "lower spec.parallelism.processesPerNode"),
    ({"limits": {"nvidia.com/gpu": 1, "nvidia.com/mig-1g.10gb": 1}}, 1, "one type of device"),
    ({"limits": {"nvidia.com/gpu": 1, "amd.com/gpu": 1}}, 1, "amd.com/gpu, nvidia.com/gpu"),
    ({"limits": {"nvidia.com/gpu": "500m"}}, "auto", "not a whole number"),
    ({"requests": {"nvidia.com/gpu": 1}}, "auto", "set nvidia.com/gpu in limits only"),
    ({"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}}, "auto", "cannot be overcommitted"),
]


@pytest.mark.parametrize(("resources", "wanted", "expected"), NEVER)
def test_what_can_never_work_is_refused_before_anything_is_made(resources: Any, wanted: Any, expected: str) -> None:
    run = pretrain(wanted, **resources)
    inputs = by_key(finished("CorpusBuild", "corpus"), finished("TokenizerBuild", "tokenizer"))
    decided = plan(run, Observed(NOW, {}, inputs), Settings())
    condition = find_condition(decided.status.conditions, ConditionType.SUCCEEDED)
    assert created(decided) == ()
    assert condition
    assert (condition.status, condition.reason) == ("False", Reason.INVALID_SPEC)
    assert condition.message.startswith("spec.placement.resources of stage train: ")
    assert expected in condition.message


def test_a_request_equal_to_the_limit_is_no_overcommitment() -> None:
    run = pretrain(requests={"nvidia.com/gpu": "2"}, limits={"nvidia.com/gpu": 2})
    assert words(run) == ""


def test_devices_of_the_operators_settings_count_as_well() -> None:
    settings = Settings.model_validate({"stageResources": {"pretrain": {"limits": {"nvidia.com/gpu": 4}}}})
    run = parse_run(manifest("PretrainRun"))
    assert environment(run, settings)["HATCHERY_PROCESSES_PER_NODE"] == "4"
    several = parse_run(manifest("PretrainRun", parallelism={"processesPerNode": 8}))
    assert "8 processes need one device each" in words(several, settings)


@pytest.mark.parametrize("kind", STAGES)
def test_pods_without_torchrun_may_ask_for_any_number_of_devices(kind: str) -> None:
    run = parse_run(manifest(kind, placement={"resources": {"limits": {"nvidia.com/gpu": 2}}}))
    assert run.spec
    assert misfit(STAGES[kind], run.spec, Settings()) == ""


def test_a_run_that_works_is_not_stopped_by_a_rule_that_came_later() -> None:
    """An attempt that is in flight goes on; only a new one would be refused."""
    run = pretrain("auto", limits={"nvidia.com/mig-1g.10gb": 2})
    stages = [
        StageStatus(name="encode", state="Succeeded", attempt=1, job="code-encode-a1"),
        StageStatus(name="train", state="Running", attempt=1, job="code-train-a1"),
    ]
    decided = plan(with_status(run, stages=stages), Observed(NOW, {}, {}), Settings())
    condition = find_condition(decided.status.conditions, ConditionType.SUCCEEDED)
    assert condition
    assert condition.reason != Reason.INVALID_SPEC


def test_every_pod_of_a_gang_has_the_same_devices_and_processes() -> None:
    runs = [pretrain(nodes=nodes, limits={"nvidia.com/gpu": 2}) for nodes in (1, 2, 16)]
    for one, other in itertools.pairwise(runs):
        assert container(one)["resources"] == container(other)["resources"]
        assert (
            environment(one)["HATCHERY_PROCESSES_PER_NODE"] == environment(other)["HATCHERY_PROCESSES_PER_NODE"] == "2"
        )
