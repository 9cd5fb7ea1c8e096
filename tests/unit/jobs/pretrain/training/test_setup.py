"""Whether a model fits into the memory of its workers, before it is built."""

import pytest
import torch

from hatchery_api.conditions import Reason
from hatchery_jobs.pretrain.launcher import cgroup
from hatchery_jobs.pretrain.training.setup import check_memory
from hatchery_jobs.runtime.errors import SpecError

PARAMETERS = 111_000_000
STATE_BYTES = 16 * PARAMETERS
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """The control groups as a pod sees them, none yet."""
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def pod_limit(root):
    return lambda said: (root / "memory.max").write_text(f"{said}\n")


def test_what_fits_and_what_has_no_limit_is_let_through(pod_limit):
    check_memory(PARAMETERS, 1, CPU)
    pod_limit(STATE_BYTES)
    check_memory(PARAMETERS, 1, CPU)
    pod_limit("max")
    check_memory(PARAMETERS, 1, CPU)


def test_a_model_that_no_micro_batch_makes_fit_is_refused_with_both_amounts(pod_limit):
    pod_limit(10**9)
    with pytest.raises(SpecError, match=r"111,000,000 parameters take 1\.78 GB .* is 1\.00 GB; raise .*limits") as e:
        check_memory(PARAMETERS, 1, CPU)
    assert e.value.reason == Reason.OUT_OF_MEMORY


def test_workers_of_a_pod_share_its_limit_and_may_share_the_model(pod_limit, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    pod_limit(2 * 10**9)
    with pytest.raises(SpecError, match=r"take 1\.78 GB in each worker, and its share of the pod's limit is 1\.00 GB"):
        check_memory(PARAMETERS, 1, CPU)
    check_memory(PARAMETERS, 2, CPU)


def test_a_gpu_counts_with_its_own_memory(pod_limit, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 10**9))
    pod_limit(1)
    with pytest.raises(SpecError, match=r"the GPU has 1\.00 GB; shard the model with spec\.parallelism\.strategy fsdp"):
        check_memory(PARAMETERS, 1, torch.device("cuda", 0))
    check_memory(PARAMETERS, 2, torch.device("cuda", 0))
