"""Checkpoints survive every way of dying."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError

from hatchery_api.conditions import Reason
from hatchery_jobs.errors import RetryableError
from hatchery_jobs.pretrain import checkpoint
from hatchery_jobs.pretrain.checkpoint import Checkpoints
from hatchery_jobs.pretrain.curve import Curve, read_curve
from hatchery_jobs.pretrain.state import RunState


def make(seed):
    torch.manual_seed(seed)
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return model, optimizer


def save(folder, *steps, keep=2):
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        model, optimizer = make(step)
        checkpoints.save(RunState(step=step, train_loss=step / 7), model, optimizer.state_dict())
    return checkpoints


def test_what_is_saved_is_loaded(tmp_path):
    checkpoints = save(tmp_path, 5)
    model, optimizer = make(99)
    state = checkpoints.load(5, model, optimizer)
    expected_model, expected_optimizer = make(5)
    assert state == RunState(step=5, train_loss=5 / 7)
    assert torch.equal(model.weight, expected_model.weight)
    moments = [o.state_dict()["state"][0]["exp_avg"] for o in (optimizer, expected_optimizer)]
    assert torch.equal(*moments)


def test_only_the_last_ones_are_kept(tmp_path):
    save(tmp_path, 5, 10, 100, 1000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000100", "step-00001000"]


def test_there_may_be_none(tmp_path):
    assert Checkpoints(tmp_path / "nothing", 2).newest() is None


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_a_torn_one_is_skipped_and_reported(tmp_path, capfd, file, damage):
    checkpoints = save(tmp_path, 5, 10)
    path = tmp_path / "step-00000010" / file
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"{" + data[1:-1] + b"!")
    assert checkpoints.newest().step == 5
    report = json.loads(capfd.readouterr().out)
    assert report["event"] == "checkpoint-skipped"
    assert report["checkpoint"].endswith("step-00000010")


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

    monkeypatch.setattr(*((checkpoint, "save_model") if full == "model" else (torch, "save")), fails)
    with pytest.raises(RetryableError, match="step-00000010: No space left on device") as e:
        save(tmp_path, 10)
    assert e.value.reason == Reason.STORAGE_ERROR
    assert checkpoints.newest().step == 5


KILLED = """
import json, os, shutil, signal, sys
from pathlib import Path
import torch
from hatchery_jobs.pretrain import checkpoint
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

for name in ("save_model", "_sync_file", "sha256_file", "write_atomically", "sync_folder"):
    setattr(checkpoint, name, dies_at(getattr(checkpoint, name)))
torch.save = dies_at(torch.save)
model = torch.nn.Linear(4, 3)
for last in range(1, 20):
    shutil.copytree(root / "good", root / str(last))
    child = os.fork()
    if child == 0:
        checkpoint.Checkpoints(root / str(last), 2).save(RunState(step=10), model, {"state": {}})
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
