"""The train stage with real torchrun processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from tests.unit.jobs.pretrain import pausing_worker
from tests.unit.jobs.pretrain.pausing_worker import PAUSE_STEP

from hatchery_api.contract import ExitCode
from hatchery_api.format import significant
from hatchery_jobs.pretrain import train
from hatchery_jobs.pretrain.launcher import Gang
from hatchery_jobs.pretrain.record.curve import CURVE, read_curve
from hatchery_jobs.pretrain.training import loop
from hatchery_jobs.runtime.errors import Interrupted

TIMEOUT_SECONDS = 200
WORKER, PAUSING = loop.__name__, pausing_worker.__name__


class StopAtLine(threading.Event):
    """Is set as soon as a file has so many lines: a termination signal at a known point of the run."""

    def __init__(self, path: Path, lines: int) -> None:
        super().__init__()
        self.path, self.lines = path, lines

    def is_set(self) -> bool:
        if not super().is_set() and self.path.exists() and self.path.read_text().count("\n") >= self.lines:
            self.set()
        return super().is_set()


def content(folder):
    """All but the record of the run, whose times differ."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != "manifest.json"}


@pytest.fixture(scope="module")
def alone(shared_bench, inputs):
    """A run of one worker, done once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("HATCHERY_METRICS_PORT", "0")
        return train.run(shared_bench.context("train", inputs, "alone"))


def test_a_run_leaves_a_folder_that_transformers_loads(alone):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(alone.folder)
    tokenizer = AutoTokenizer.from_pretrained(alone.folder)
    text = "the cat sees a dog."
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert sum(p.numel() for p in model.parameters()) == alone.result.parameters
    model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=2, do_sample=False, pad_token_id=0)
    assert not (alone.folder / "checkpoints").exists()


def test_its_result_and_card_say_the_same_as_its_curve(alone):
    curve = read_curve(alone.folder / CURVE)
    measured = [line["eval_loss"] for line in curve if "eval_loss" in line]
    stored = json.loads((alone.folder / "result.json").read_text())
    assert stored["loss"]["initial"] == measured[0]
    assert stored["loss"]["eval"] == measured[-1] == alone.result.loss.eval
    assert not stored.keys() & {"tokensPerSecond", "lastCheckpoint", "resumedFrom"}
    assert alone.result.tokens_per_second > 0
    card = (alone.folder / "README.md").read_text()
    assert card.startswith("---\nlicense: other\n")
    assert significant(measured[-1]) in card
    assert f"{alone.result.parameters:,}" in card


def test_a_finished_run_is_not_repeated(alone, shared_bench, inputs, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    again = train.run(shared_bench.context("train", inputs, "alone"))
    assert again.cached
    assert again.artifact == alone.artifact
    assert again.result.loss == alone.result.loss


def test_a_pod_that_died_before_the_commit_only_commits(bench, inputs, alone, monkeypatch):
    context = bench.context("train", inputs)
    folder = context.draft(train.CODE_VERSION).folder
    for name, data in content(alone.folder).items():
        (folder / name).write_bytes(data)
    (folder / "checkpoints" / "step-00000012").mkdir(parents=True)
    monkeypatch.setattr(subprocess, "Popen", None)
    outcome = train.run(context)
    assert outcome.artifact.digest == alone.artifact.digest


@pytest.fixture
def interrupt(bench, inputs, monkeypatch):
    """Trains with some processes up to an update before which the workers wait, and ends as a pod does when asked."""

    def until(processes, step, lines):
        monkeypatch.setenv("HATCHERY_PROCESSES_PER_NODE", str(processes))
        monkeypatch.setenv(PAUSE_STEP, str(step))
        context = bench.context("train", inputs, parallelism={"processesPerNode": processes})
        curve = context.draft(train.CODE_VERSION).folder / CURVE
        object.__setattr__(context, "stop", StopAtLine(curve, lines))
        command = Gang.command
        with monkeypatch.context() as patch:
            patch.setattr(Gang, "command", lambda *args: [PAUSING if a == WORKER else a for a in command(*args)])
            with pytest.raises(Interrupted):
                train.run(context)
        assert max(line["step"] for line in read_curve(curve)) == step + 1

    return until


@pytest.mark.timeout(600)  # three launches of torchrun
def test_a_run_resized_from_two_workers_to_one_and_back_gives_the_bytes_of_one(
    bench, inputs, alone, interrupt, monkeypatch
):
    interrupt(processes=2, step=6, lines=8)  # 6 updates and 2 measurements
    interrupt(processes=1, step=9, lines=12)
    monkeypatch.setenv("HATCHERY_PROCESSES_PER_NODE", "2")
    outcome = train.run(bench.context("train", inputs, parallelism={"processesPerNode": 2}))
    assert outcome.result.resumed_from == [7, 10]
    assert content(outcome.folder) == content(alone.folder)


def wait_until(condition, process):
    """Waits for a condition while a process lives."""
    never = threading.Event()
    for _ in range(TIMEOUT_SECONDS * 10):
        if condition():
            return
        assert process.poll() is None, "the process ended too early"
        never.wait(0.1)
    raise AssertionError("timed out")


def test_a_pod_asked_to_end_leaves_a_checkpoint_and_exit_code_143(bench, inputs, unused_port):
    context = bench.context("train", inputs, schedule={"steps": 100_000}, evaluate={"everySteps": 100_000})
    job, report = bench.root / "job.json", bench.root / "report"
    job.write_text(json.dumps(context.job.wire()))
    settings = {"HATCHERY_REPORT_PATH": str(report), "HATCHERY_METRICS_PORT": str(unused_port)}
    process = subprocess.Popen(
        [sys.executable, "-m", "hatchery_jobs", "--input", str(job)],
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
    )
    try:
        curve = context.draft(train.CODE_VERSION).folder / CURVE
        wait_until(lambda: curve.exists() and curve.read_text().count("\n") > 3, process)
        with urllib.request.urlopen(f"http://localhost:{unused_port}/metrics", timeout=10) as answer:
            assert 'hatchery_train_loss{name="run",namespace="lab",split="train"}' in answer.read().decode()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=TIMEOUT_SECONDS) == ExitCode.INTERRUPTED
    finally:
        process.kill()
        process.wait()
    assert json.loads(report.read_text())["reason"] == "Interrupted"
    checkpoints = sorted((curve.parent / "checkpoints").iterdir())
    assert int(checkpoints[-1].name.removeprefix("step-")) == max(line["step"] for line in read_curve(curve))


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
