"""Several workers in their own processes: the same curve for any number of them, with DDP and FSDP."""

import pytest
import torch
from safetensors.torch import load_file
from tests.support.jobs.training_loop import train, train_together

from hatchery_jobs.pretrain.launcher.protocol import CHECKPOINTS
from hatchery_jobs.pretrain.record.curve import CURVE, read_curve

SPEC = {
    "batch": {"sequences": 8, "perDevice": 2},
    # without it AdamW would make updates of the rounding errors in gradients of tokens that never occur
    "optimizer": {"epsilon": 1e-6},
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def losses(worker):
    return [line["loss"] for line in read_curve(worker.folder / CURVE) if "loss" in line]


def parameters(worker):
    return torch.cat([tensor.flatten() for tensor in load_file(worker.folder / "model.safetensors").values()])


@pytest.fixture
def alone(make_worker):
    worker = make_worker("alone", **SPEC)
    train(worker)
    return worker


def test_any_number_of_workers_learns_the_same(make_worker, alone):
    """Three workers compute two, one and one of the four micro-batches."""
    worker = make_worker("together", **SPEC)
    assert train_together(worker, 3).result.step == 12
    assert losses(worker) == pytest.approx(losses(alone), abs=1e-5)
    assert torch.allclose(parameters(worker), parameters(alone), atol=1e-5)


def test_workers_that_hold_parts_learn_the_same_and_leave_a_whole_model(make_worker, alone):
    """Three workers make two passes each, two of which count nothing."""
    worker = make_worker("parts", **SPEC, parallelism={"strategy": "fsdp"})
    assert train_together(worker, 3).result.perplexity is not None
    assert losses(worker) == pytest.approx(losses(alone), abs=1e-5)
    assert torch.allclose(parameters(worker), parameters(alone), atol=1e-5)
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(worker.folder)
    assert sum(p.numel() for p in loaded.parameters()) == parameters(worker).numel()


def test_one_run_goes_from_parts_on_two_workers_to_one_and_back(make_worker, alone):
    """Each leg ends as if its pods had been asked to: it is cut short, and only its checkpoint is left."""
    worker = make_worker("legs", **SPEC)
    for leg, (workers, strategy, last) in enumerate(((2, "fsdp", 5), (1, "ddp", 10), (2, "fsdp", 12))):
        if leg:
            for folder in (worker.folder / CHECKPOINTS).iterdir():
                assert folder.name <= f"step-{last:08d}"
        spec = worker.job.spec
        parallelism = spec.parallelism.model_copy(update={"strategy": strategy})
        job = worker.job.model_copy(update={"spec": spec.model_copy(update={"parallelism": parallelism})})
        local_folder = worker.local_folder.parent / f"legs-local{leg}"
        local_folder.mkdir()
        part = worker.model_copy(update={"job": job, "local_folder": local_folder})
        module = "hatchery_jobs.pretrain.training.loop" if last == 12 else "tests.support.jobs.ending_worker"
        train_together(part, workers, module)
    assert losses(worker) == pytest.approx(losses(alone), abs=1e-5)
    assert torch.allclose(parameters(worker), parameters(alone), atol=1e-5)
