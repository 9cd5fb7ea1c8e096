"""Several workers in processes of their own: the same curve for any number of them, whole or in parts."""

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


def losses(order):
    return [line["loss"] for line in read_curve(order.folder / CURVE) if "loss" in line]


def parameters(order):
    return torch.cat([tensor.flatten() for tensor in load_file(order.folder / "model.safetensors").values()])


@pytest.fixture
def alone(orders):
    order = orders("alone", **SPEC)
    train(order)
    return order


def test_any_number_of_workers_learns_the_same(orders, alone):
    """Three workers compute two, one and one of the four micro-batches."""
    order = orders("together", **SPEC)
    assert train_together(order, 3).result.step == 12
    assert losses(order) == pytest.approx(losses(alone), abs=1e-5)
    assert torch.allclose(parameters(order), parameters(alone), atol=1e-5)


def test_workers_that_hold_parts_learn_the_same_and_leave_a_whole_model(orders, alone):
    """Three workers make two passes each, two of which count nothing."""
    order = orders("parts", **SPEC, parallelism={"strategy": "fsdp"})
    assert train_together(order, 3).result.perplexity is not None
    assert losses(order) == pytest.approx(losses(alone), abs=1e-5)
    assert torch.allclose(parameters(order), parameters(alone), atol=1e-5)
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(order.folder)
    assert sum(p.numel() for p in loaded.parameters()) == parameters(order).numel()


def test_one_run_goes_from_parts_on_two_workers_to_one_and_back(orders, alone):
    """Each leg ends as if its pods had been asked to: it is cut short, and only its checkpoint is left."""
    order = orders("legs", **SPEC)
    for leg, (workers, strategy, last) in enumerate(((2, "fsdp", 5), (1, "ddp", 10), (2, "fsdp", 12))):
        if leg:
            for folder in (order.folder / CHECKPOINTS).iterdir():
                assert folder.name <= f"step-{last:08d}"
        spec = order.job.spec
        parallelism = spec.parallelism.model_copy(update={"strategy": strategy})
        job = order.job.model_copy(update={"spec": spec.model_copy(update={"parallelism": parallelism})})
        signs = order.signs.parent / f"legs-signs{leg}"
        signs.mkdir()
        part = order.model_copy(update={"job": job, "signs": signs})
        module = "hatchery_jobs.pretrain.training.loop" if last == 12 else "tests.support.jobs.ending_worker"
        train_together(part, workers, module)
    assert losses(order) == pytest.approx(losses(alone), abs=1e-5)
    assert torch.allclose(parameters(order), parameters(alone), atol=1e-5)
