"""Bad batches in the real loop: skips, rollbacks and resumes, after which every good row was learnt from once."""

import math

import pytest
import torch
from tests.support.jobs.training_loop import train

from hatchery_api.conditions import Reason
from hatchery_jobs.pretrain.checkpoint.store import Checkpoints
from hatchery_jobs.pretrain.data.loader import StoreSource
from hatchery_jobs.pretrain.distributed.process_group import ProcessGroup
from hatchery_jobs.pretrain.launcher.protocol import CHECKPOINTS
from hatchery_jobs.pretrain.objectives.causal import Causal
from hatchery_jobs.pretrain.record.curve import CURVE, read_curve
from hatchery_jobs.runtime.errors import SpecError

ROWS, PER_BATCH = 2, 4


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def read_positions(monkeypatch):
    """Positions of the run that were read, in order."""
    read = []
    training = StoreSource.training

    def recorded(self, first, count):
        read.extend(range(first, first + count))
        return training(self, first, count)

    monkeypatch.setattr(StoreSource, "training", recorded)
    return read


def spoil(monkeypatch, batches, factor=math.nan):
    """Multiplies the losses of some batches."""
    training, loss = Causal.training, Causal.loss
    current = []

    def noted(self, first, count):
        current[:] = [first // PER_BATCH]
        return training(self, first, count)

    def spoilt(self, model, batch):
        value = loss(self, model, batch)
        return value * factor if model.model.training and current[0] in batches else value

    monkeypatch.setattr(Causal, "training", noted)
    monkeypatch.setattr(Causal, "loss", spoilt)


def losses(worker):
    return [line["loss"] for line in read_curve(worker.folder / CURVE) if "loss" in line]


def test_a_batch_that_is_no_number_is_left_out_and_the_next_takes_its_place(make_worker, monkeypatch, read_positions):
    spoil(monkeypatch, {3})
    worker = make_worker("skip", guard={"nonFinite": "skip"})
    result = train(worker).result
    assert (result.step, result.skipped, result.rollbacks) == (12, 1, None)
    assert read_positions == list(range(13 * PER_BATCH))
    state = Checkpoints(worker.folder / CHECKPOINTS, 2).newest()
    assert (state.batch, state.step, state.skipped) == (13, 12, [(3, 4)])
    assert len(losses(worker)) == 12


def test_what_is_left_out_stays_so_after_a_resume(make_worker, monkeypatch, read_positions):
    spoil(monkeypatch, {3})
    whole = make_worker("whole", guard={"nonFinite": "skip"})
    train(whole)
    read_positions.clear()
    broken, asked = make_worker("broken", guard={"nonFinite": "skip"}), 0

    def stop_requested(self):
        nonlocal asked
        asked += 1
        return asked == 36

    with monkeypatch.context() as patch:
        patch.setattr(ProcessGroup, "stop_requested", stop_requested)
        first = train(broken).result
    assert 3 < first.step < 12
    assert train(broken).result.skipped == 1
    assert read_positions == list(range(13 * PER_BATCH))  # nothing twice, no gap
    assert losses(broken) == losses(whole)
    assert (broken.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()


def test_a_roll_back_goes_on_from_the_checkpoint_behind_the_bad_batch(make_worker, monkeypatch, read_positions):
    spoil(monkeypatch, {8})
    worker = make_worker("back", guard={"nonFinite": "rollback"})
    result = train(worker).result
    assert (result.step, result.rollbacks, result.skipped) == (12, 1, 4)  # batches 5 to 8, since the checkpoint at 5
    positions = [*range(9 * PER_BATCH), *range(9 * PER_BATCH, 16 * PER_BATCH)]
    assert read_positions == positions
    steps = [line["step"] for line in read_curve(worker.folder / CURVE) if "loss" in line]
    assert steps == list(range(1, 13))


def test_going_back_twice_to_one_checkpoint_leaves_no_batch_out_twice(make_worker, monkeypatch):
    spoil(monkeypatch, {6, 8})
    result = train(make_worker("twice", guard={"nonFinite": "rollback"})).result
    assert (result.step, result.rollbacks, result.skipped) == (12, 2, 4)  # batches 5 to 8


def test_before_the_first_checkpoint_a_roll_back_leaves_the_batch_out(make_worker, monkeypatch):
    spoil(monkeypatch, {2})
    result = train(make_worker("early", guard={"nonFinite": "rollback"})).result
    assert (result.step, result.rollbacks, result.skipped) == (12, None, 1)


def test_a_spike_is_left_out_and_the_end_is_nearly_that_of_a_clean_run(make_worker, monkeypatch):
    changes = {"schedule": {"steps": 40, "warmupSteps": 2, "peakLr": 3e-3, "minLr": 3e-4}}
    clean = train(make_worker("clean", **changes)).result.loss.eval
    spoil(monkeypatch, {20, 21}, factor=50.0)
    spike = {"factor": 3, "window": 8, "action": "skip"}
    result = train(make_worker("spike", guard={"lossSpike": spike}, **changes)).result
    assert result.skipped == 2
    assert result.loss.eval == pytest.approx(clean, rel=0.01)


def test_too_many_bad_batches_end_the_run(make_worker, monkeypatch):
    spoil(monkeypatch, set(range(2, 99)))
    with pytest.raises(SpecError, match="after 3 interventions") as e:
        train(make_worker("hopeless", guard={"nonFinite": "skip", "maxInterventions": 3}))
    assert e.value.reason == Reason.NON_FINITE_LOSS
