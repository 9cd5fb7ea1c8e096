"""Training waits only for a copy in memory, and a failing store stops it only at the end."""

import threading

import pytest
import torch

from hatchery_api.conditions import Reason
from hatchery_jobs.pretrain.checkpoint.snapshot import TrainingSnapshot
from hatchery_jobs.pretrain.checkpoint.store import Checkpoints
from hatchery_jobs.pretrain.checkpoint.writer import Buffers, CheckpointWriter
from hatchery_jobs.pretrain.state import RunState
from hatchery_jobs.runtime.errors import RetryableError

PATIENCE_SECONDS = 60
"""After this a test that hangs fails."""
FULL = RetryableError(Reason.STORAGE_ERROR, "no space left")


class Disk(Checkpoints):
    """Checkpoints on a disk that waits when told to, and fails as often as told."""

    def __init__(self, folder):
        super().__init__(folder, 5)
        object.__setattr__(self, "open", threading.Event())
        object.__setattr__(self, "reached", threading.Semaphore(0))
        object.__setattr__(self, "failures", [])
        self.open.set()

    def save(self, state, snapshot):
        self.reached.release()
        assert self.open.wait(PATIENCE_SECONDS)
        if self.failures:
            raise self.failures.pop()
        return super().save(state, snapshot)


@pytest.fixture
def disk(tmp_path):
    return Disk(tmp_path)


@pytest.fixture
def events():
    return []


@pytest.fixture
def writer(disk, events):
    made = CheckpointWriter(
        disk,
        lambda state, folder: events.append(("saved", state.step, folder.name)),
        lambda state, error: events.append(("failed", state.step, error.message)),
    )
    yield made
    disk.open.set()
    made.close()


def snapshot(value):
    weight = torch.full((3, 4), float(value))
    moments = {"step": torch.tensor(float(value)), "exp_avg": torch.full((3, 4), -float(value))}
    return TrainingSnapshot(
        {"weight": weight}, {"state": {"weight": moments}, "param_groups": [{"params": ["weight"]}]}
    )


def saved_value(disk, step):
    loaded = disk.load(step)
    [weight] = set(loaded.weights["weight"].flatten().tolist())
    [moment] = set(loaded.optimizer["state"]["weight"]["exp_avg"].flatten().tolist())
    assert moment == -weight == -loaded.optimizer["state"]["weight"]["step"].item()
    return weight


def train(live, value):
    """Changes a snapshot's tensors, as the next update does."""
    live.weights["weight"].fill_(value)
    live.optimizer["state"]["weight"]["step"].fill_(value)
    live.optimizer["state"]["weight"]["exp_avg"].fill_(-value)


def test_training_goes_on_while_the_disk_is_busy_and_changes_nothing_of_what_is_written(writer, disk, events):
    disk.open.clear()
    live = snapshot(1)
    writer.save(RunState(step=1), live)
    train(live, 2)  # reached although nothing has been written
    assert writer.newest_durable_step is None
    disk.open.set()
    writer.finish()
    assert saved_value(disk, 1) == 1
    assert (writer.newest_durable_step, events) == (1, [("saved", 1, "step-00000001")])


def test_one_write_is_in_flight_and_the_next_one_waits_for_it(writer, disk):
    disk.open.clear()
    live = snapshot(1)
    writer.save(RunState(step=1), live)
    assert disk.reached.acquire(timeout=PATIENCE_SECONDS)
    train(live, 2)
    second = threading.Thread(target=writer.save, args=(RunState(step=2), live))
    second.start()
    assert not disk.reached.acquire(blocking=False)
    disk.open.set()
    second.join(PATIENCE_SECONDS)
    writer.finish()
    assert [saved_value(disk, step) for step in (1, 2)] == [1, 2]


def test_memory_is_taken_once(disk, writer):
    buffers = writer._buffers
    writer.reserve(snapshot(0))
    writer._wait()
    places = [tensor.data_ptr() for tensor in buffers._tensors]
    assert len(places) == 3
    for step in (1, 2):
        writer.save(RunState(step=step), snapshot(step))
    writer.finish()
    assert [tensor.data_ptr() for tensor in buffers._tensors] == places
    assert [saved_value(disk, step) for step in (1, 2)] == [1, 2]


def test_a_state_of_another_form_gets_other_memory():
    buffers = Buffers()
    first = buffers.copy(TrainingSnapshot({"weight": torch.ones(2)}, {}))
    assert first.optimizer == {}
    second = buffers.copy(snapshot(3))
    assert torch.equal(second.weights["weight"], torch.full((3, 4), 3.0))


def test_views_are_written_as_contiguous_tensors(writer, disk):
    writer.save(RunState(step=1), TrainingSnapshot({"weight": torch.arange(6.0).reshape(2, 3).T}, {}))
    writer.finish()
    assert disk.load(1).weights["weight"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_a_full_disk_is_told_and_the_next_checkpoint_is_the_next_try(writer, disk, events):
    disk.failures.append(FULL)
    writer.save(RunState(step=1), snapshot(1))
    writer.save(RunState(step=2), snapshot(2))
    writer.finish()
    assert events == [("failed", 1, "no space left"), ("saved", 2, "step-00000002")]
    assert writer.newest_durable_step == 2


def test_the_end_tries_once_more(writer, disk, events):
    disk.failures.append(FULL)
    writer.save(RunState(step=1), snapshot(1))
    writer.finish()
    assert [event[:2] for event in events] == [("failed", 1), ("saved", 1)]
    assert saved_value(disk, 1) == 1


def test_the_end_fails_when_the_newest_state_cannot_be_saved(writer, disk):
    writer.save(RunState(step=1), snapshot(1))
    writer.finish()
    disk.failures += [FULL, FULL]
    writer.save(RunState(step=2), snapshot(2))
    with pytest.raises(RetryableError, match="no space left"):
        writer.finish()
    assert writer.newest_durable_step == 1
    assert disk.newest().step == 1
    writer.finish()  # one more try, which succeeds
    assert disk.newest().step == 2


def test_an_unforeseen_error_reaches_training(writer, disk):
    disk.failures.append(ZeroDivisionError())
    writer.save(RunState(step=1), snapshot(1))
    with pytest.raises(ZeroDivisionError):
        writer.save(RunState(step=2), snapshot(2))


def test_a_synchronous_one_is_durable_when_it_returns(disk, events):
    writer = CheckpointWriter(disk, lambda state, _: events.append(state.step), pytest.fail, asynchronous=False)
    writer.save(RunState(step=1), snapshot(1))
    assert (writer.newest_durable_step, events) == (1, [1])
    writer.close()
