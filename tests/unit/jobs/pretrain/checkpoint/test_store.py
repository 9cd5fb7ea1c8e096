"""Checkpoints survive crashes at any point, full disks and corrupted files."""

import json
import math
import os
import shutil
import subprocess
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from hatchery_api.conditions import Reason
from hatchery_jobs.pretrain.checkpoint import store as checkpoint
from hatchery_jobs.pretrain.checkpoint.snapshot import TrainingSnapshot
from hatchery_jobs.pretrain.checkpoint.store import CHECKPOINT_MANIFEST, FILES, Checkpoints, read_checkpoint_manifest
from hatchery_jobs.pretrain.record.curve import Curve, read_curve
from hatchery_jobs.pretrain.state import RunState
from hatchery_jobs.runtime.errors import RetryableError


def make(seed):
    torch.manual_seed(seed)
    moments = {"step": torch.tensor(float(seed)), "exp_avg": torch.randn(3, 4)}
    optimizer = {"state": {"weight": moments}, "param_groups": [{"params": ["weight"], "lr": 0.1}]}
    return TrainingSnapshot({"weight": torch.randn(3, 4), "bias": torch.randn(3)}, optimizer)


def save(folder, *steps, keep=2):
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(RunState(step=step, train_loss=step / 7), make(step))
    return checkpoints


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded(tmp_path):
    checkpoints = save(tmp_path, 5)
    assert checkpoints.newest() == RunState(step=5, train_loss=5 / 7)
    loaded, expected = checkpoints.load(5), make(5)
    assert all(torch.equal(loaded.weights[name], tensor) for name, tensor in expected.weights.items())
    assert loaded.weights.keys() == expected.weights.keys()
    state, expected_state = loaded.optimizer["state"]["weight"], expected.optimizer["state"]["weight"]
    assert all(torch.equal(state[name], tensor) for name, tensor in expected_state.items())
    assert loaded.optimizer["param_groups"] == expected.optimizer["param_groups"]


def test_a_loaded_one_does_not_change_its_files(tmp_path):
    checkpoints = save(tmp_path, 5)
    loaded = checkpoints.load(5)
    loaded.weights["weight"].add_(1)
    loaded.optimizer["state"]["weight"]["exp_avg"].add_(1)
    assert checkpoints.newest().step == 5


def test_a_loss_that_is_no_number_makes_no_checkpoint_unreadable(tmp_path):
    state = RunState(step=5, recent_losses=[1.0, math.inf])
    Checkpoints(tmp_path, 2).save(state, make(5))
    assert Checkpoints(tmp_path, 2).newest() == state


def test_only_the_last_ones_are_kept(tmp_path):
    save(tmp_path, 5, 10, 100, 1000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000100", "step-00001000"]


def test_one_of_an_earlier_step_ends_the_course_that_was_left(tmp_path):
    checkpoints = save(tmp_path, 5, 10, 15, keep=3)
    checkpoints.discard_after(10)
    assert names(tmp_path) == ["step-00000005", "step-00000010"]
    (tmp_path / "step-00000010" / CHECKPOINT_MANIFEST).unlink()
    save(tmp_path, 7, keep=1)  # the torn later one must not count as the newest
    assert names(tmp_path) == ["step-00000007"]


def test_nothing_to_discard(tmp_path):
    Checkpoints(tmp_path / "nothing", 2).discard_after(3)
    assert not (tmp_path / "nothing").exists()


def test_there_may_be_none(tmp_path):
    assert Checkpoints(tmp_path / "nothing", 2).newest() is None


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two checkpoints, to be copied and damaged."""
    folder = tmp_path_factory.mktemp("pair")
    save(folder, 5, 10)
    return folder


def skipped(capfd):
    [report] = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert report["event"] == "checkpoint-skipped"
    assert report["checkpoint"].endswith("step-00000010")
    return report["wrong"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from((*FILES, CHECKPOINT_MANIFEST)), st.integers(0, 10**9), st.integers(1, 255), st.booleans())
def test_damage_at_any_byte_is_found_and_the_previous_one_used(pair, tmp_path, capfd, file, at, flip, cut):
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(pair, folder)
    path = folder / "step-00000010" / file
    data = bytearray(path.read_bytes())
    at %= len(data)
    if cut:
        del data[at:]
    else:
        data[at] ^= flip
    path.write_bytes(data)
    assert Checkpoints(folder, 2).newest().step == 5
    assert file in skipped(capfd)


def test_every_byte_of_a_manifest_is_sealed(pair, tmp_path):
    shutil.copytree(pair / "step-00000010", tmp_path / "one")
    path = tmp_path / "one" / CHECKPOINT_MANIFEST
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(ValueError, match="does not match its seal"):
            read_checkpoint_manifest(tmp_path / "one")


def test_a_manifest_of_an_earlier_version_is_read(pair, tmp_path):
    manifest = json.loads((pair / "step-00000010" / CHECKPOINT_MANIFEST).read_bytes())
    del manifest["seal"], manifest["state"]["curveBytes"]
    manifest["state"]["formerField"] = 1
    shutil.copytree(pair, tmp_path / "all")
    path = tmp_path / "all" / "step-00000010" / CHECKPOINT_MANIFEST
    path.write_bytes(checkpoint._sealed(json.dumps(manifest).encode()))
    assert Checkpoints(tmp_path / "all", 2).newest().step == 10


@pytest.mark.parametrize("file", [*FILES, CHECKPOINT_MANIFEST])
@pytest.mark.parametrize("damage", ["missing", "folder", "emptied"])
def test_a_missing_file_is_found(pair, tmp_path, capfd, file, damage):
    shutil.copytree(pair, tmp_path / "all")
    path = tmp_path / "all" / "step-00000010" / file
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "emptied":
        path.touch()
    assert Checkpoints(tmp_path / "all", 2).newest().step == 5
    assert file in skipped(capfd)


def test_one_under_another_name_is_found(pair, tmp_path, capfd):
    shutil.copytree(pair, tmp_path / "all")
    (tmp_path / "all" / "step-00000005").rename(tmp_path / "all" / "step-00000012")
    assert Checkpoints(tmp_path / "all", 2).newest().step == 10
    assert "another step" in capfd.readouterr().out


def test_a_torn_one_is_replaced_when_its_step_comes_again(tmp_path):
    checkpoints = save(tmp_path, 5, 10)
    (tmp_path / "step-00000010" / "optimizer.pt").unlink()
    save(tmp_path, 10)
    assert checkpoints.newest().step == 10


@pytest.mark.parametrize("full", ["model", "optimizer"])
def test_a_full_disk_is_reported_and_the_earlier_ones_stay(tmp_path, monkeypatch, full):
    checkpoints = save(tmp_path, 5)

    def fails(*_, **__):
        raise (SafetensorError if full == "model" else RuntimeError)("No space left on device")

    monkeypatch.setattr(*((checkpoint, "save_file") if full == "model" else (torch, "save")), fails)
    with pytest.raises(RetryableError, match="step-00000010: No space left on device") as e:
        save(tmp_path, 10)
    assert e.value.reason == Reason.STORAGE_ERROR
    assert checkpoints.newest().step == 5


KILLED = """
import json, os, shutil, signal, sys
from pathlib import Path
import torch
from hatchery_jobs.pretrain.checkpoint import store as checkpoint
from hatchery_jobs.pretrain.checkpoint.snapshot import TrainingSnapshot
from hatchery_jobs.pretrain.state import RunState

calls, last, root = 0, 0, Path(sys.argv[1])

def dies_at(function):
    def call(*arguments, **more):
        global calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **more)
    return call

for name in ("save_file", "sync_file", "sha256_file", "write_atomically", "sync_folder"):
    setattr(checkpoint, name, dies_at(getattr(checkpoint, name)))
torch.save = dies_at(torch.save)
snapshot = TrainingSnapshot({"weight": torch.ones(3, 4)}, {})
for last in range(1, 20):
    shutil.copytree(root / "good", root / str(last))
    child = os.fork()
    if child == 0:
        checkpoint.Checkpoints(root / str(last), 2).save(RunState(step=10), snapshot)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def test_a_writer_killed_at_any_point_leaves_a_good_one(tmp_path):
    save(tmp_path / "good", 5)
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=os.environ, check=True)
    deaths = sorted(int(p.name) for p in tmp_path.iterdir() if p.name != "good")
    assert deaths == list(range(1, 10))  # eight places to die, and one writer that reached its end
    newest = [Checkpoints(tmp_path / str(n), 2).newest().step for n in deaths]
    assert newest == [5] * 7 + [10] * 2  # the eighth place is after the rename
    for n in deaths:
        save(tmp_path / str(n), 10)
        assert Checkpoints(tmp_path / str(n), 2).newest().step == 10
        assert not list((tmp_path / str(n)).glob(".*"))


def test_a_resumed_curve_has_no_gap_and_no_repeat(tmp_path):
    curve = Curve(tmp_path / "metrics.jsonl", 0)
    curve.add(1, loss=3.0)
    kept = curve.sync()
    curve.add(2, loss=2.0)
    curve.close()
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 3, "lo')  # killed in the middle of a line
    curve = Curve(tmp_path / "metrics.jsonl", kept)
    curve.add(2, loss=2.5)
    curve.close()
    assert read_curve(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.5}]
