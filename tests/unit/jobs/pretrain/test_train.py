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
from hatchery_api.resources.pretrain import Parallelism
from hatchery_jobs.pretrain import train
from hatchery_jobs.pretrain.launcher import cgroup
from hatchery_jobs.pretrain.launcher import launcher as launch
from hatchery_jobs.pretrain.launcher.launcher import Gang
from hatchery_jobs.pretrain.launcher.protocol import (
    Cause,
    Flag,
    WorkerFailure,
    WorkerResult,
    WorkerSpec,
    write_ending,
    write_failure,
)
from hatchery_jobs.pretrain.record.curve import CURVE, read_curve
from hatchery_jobs.pretrain.training import loop
from hatchery_jobs.runtime.errors import Interrupted, RetryableError, SpecError

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
    assert f"{measured[-1]:.4f}" in card
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


@pytest.fixture
def order(bench, inputs):
    context = bench.context("train", inputs, checkpoint={"gracePeriod": "6s"})
    return WorkerSpec(
        job=context.job,
        tokens=bench.root,
        folder=bench.root,
        tokenizer=bench.root,
        signs=bench.root / "signs",
        first_node=True,
    )


def script(gang_launches, order, monkeypatch):
    """Replaces torchrun by what its launches would leave, one after the other."""
    launches = iter(gang_launches)

    def run_once(order, gang, stop):
        for leave in next(launches):
            leave(order)
        return 1

    monkeypatch.setattr(launch, "_launch", run_once)
    monkeypatch.setattr(launch, "RELAUNCH_WAIT_SECONDS", 0.0)


def started(order):
    order.sign(Flag.STARTED).touch()


def done(order):
    write_ending(order, WorkerResult(state="done", result={"step": 7}))


def peer_interrupted(order):
    write_ending(order, WorkerResult(state="interrupted", result={"step": 3}))


def fails(reason="AttemptFailed", code=ExitCode.RETRY, rank=0, **more):
    return lambda order: write_failure(
        order, rank, WorkerFailure(reason=reason, message=f"worker {rank}", exit_code=code, **more)
    )


GANG = Gang(nodes=2, processes=1, index=1, endpoint="run-0.run:29500", rendezvous="uid-1")


def test_lost_peers_are_waited_for(order, monkeypatch):
    script([[started, peer_interrupted], [], [started, fails(cause=Cause.PEER)], [started, done]], order, monkeypatch)
    assert launch.run_workers(order, GANG, threading.Event()).result.step == 7


def test_an_error_of_a_worker_itself_ends_the_run(order, monkeypatch):
    own = fails("NonFiniteLoss", ExitCode.SPEC_ERROR, rank=1)
    script([[started, fails(cause=Cause.PEER), own]], order, monkeypatch)
    with pytest.raises(SpecError, match="worker 1") as e:
        launch.run_workers(order, GANG, threading.Event())
    assert e.value.reason == "NonFiniteLoss"


def test_workers_that_hang_are_started_again_but_not_for_ever(order, monkeypatch):
    hangs = [started, fails("NoProgress", cause=Cause.HUNG)]
    script([hangs, hangs, [started, done]], order, monkeypatch)
    assert launch.run_workers(order, GANG, threading.Event()).result.step == 7
    script([hangs] * launch.HANGS, order, monkeypatch)
    with pytest.raises(RetryableError) as e:
        launch.run_workers(order, GANG, threading.Event())
    assert e.value.reason == "NoProgress"


def test_a_device_that_is_too_small_gets_half_the_rows_and_all_pods_know(order, monkeypatch):
    def too_small(rank):
        def leave(order):
            order.halve_micro_batch(order.micro_batch())
            fails("OutOfMemory", cause=Cause.MEMORY, rank=rank)(order)

        return leave

    assert order.micro_batch() == 2
    script([[started, too_small(1)], [started, done]], order, monkeypatch)
    assert launch.run_workers(order, GANG, threading.Event()).result.step == 7
    assert order.micro_batch() == 1
    script([[started, too_small(0)]], order, monkeypatch)  # one row cannot be halved
    with pytest.raises(RetryableError) as e:
        launch.run_workers(order, GANG, threading.Event())
    assert e.value.reason == "OutOfMemory"


@pytest.fixture
def kills(tmp_path, monkeypatch):
    """Counts workers that the kernel kills for memory."""
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    events = tmp_path / "memory.events"
    events.write_text("oom_kill 0\n")

    def killed(*signs):
        def leave(order):
            count = int(events.read_text().split()[1])
            events.write_text(f"oom_kill {count + 1}\n")
            for sign in signs:
                order.sign(sign).touch()

        return leave

    return killed


def test_a_worker_killed_for_memory_is_followed_by_ones_with_half_the_rows(order, monkeypatch, kills):
    killed, peer = kills(Flag.STARTED, Flag.ON_CPU), fails(cause=Cause.PEER, rank=1)
    script([[killed, peer], [started, done]], order, monkeypatch)
    assert launch.run_workers(order, GANG, threading.Event()).result.step == 7
    assert order.micro_batch() == 1
    script([[killed, peer]], order, monkeypatch)  # one row cannot be halved
    with pytest.raises(RetryableError, match=r"killed for memory; raise spec\.placement\.resources\.limits") as e:
        launch.run_workers(order, GANG, threading.Event())
    assert e.value.reason == "OutOfMemory"


def test_a_worker_with_a_gpu_that_was_killed_for_memory_of_the_pod_keeps_its_rows(order, monkeypatch, kills):
    script([[kills(Flag.STARTED)]], order, monkeypatch)
    with pytest.raises(RetryableError) as e:
        launch.run_workers(order, GANG, threading.Event())
    assert (e.value.reason, order.micro_batch()) == ("OutOfMemory", 2)


def told(order, per_device, **job):
    """An order of another size of micro-batch, or another attempt."""
    batch = order.job.spec.batch.model_copy(update={"per_device": per_device})
    spec = order.job.spec.model_copy(update={"batch": batch})
    return order.model_copy(update={"job": order.job.model_copy(update={"spec": spec, **job})})


def rows_of(order, per_device=2, **job):
    """Rows with which an attempt starts on CPUs."""
    attempt = told(order, per_device, **job)
    attempt.halve_after_a_kill()
    return attempt.micro_batch()


def test_workers_that_run_out_of_memory_together_halve_once(order):
    order = told(order, per_device=12)
    order.halve_micro_batch(12)
    order.halve_micro_batch(12)
    assert order.micro_batch() == 6
    order.halve_micro_batch(6)
    assert order.micro_batch() == 3


def test_a_pod_that_was_killed_for_memory_is_followed_by_one_with_half_the_rows(order):
    assert rows_of(order) == 2
    assert rows_of(order, attempt=2, earlier_failure="HubUnavailable") == 2
    assert rows_of(order, attempt=3, earlier_failure="OutOfMemory") == 1


def test_each_kill_for_memory_halves_once_however_often_the_attempt_starts(order):
    rows = [rows_of(order, 12, attempt=n, earlier_failure="OutOfMemory") for n in (2, 2, 3, 3, 4, 5)]
    assert rows == [6, 6, 3, 3, 1, 1]


def test_pods_that_never_meet_give_up(order, monkeypatch):
    script([[]] * launch.FRUITLESS_LAUNCHES, order, monkeypatch)
    with pytest.raises(RetryableError, match=r"2 pods did not meet at run-0\.run:29500"):
        launch.run_workers(order, GANG, threading.Event())


def test_a_killed_worker_of_a_single_pod_is_reported(order, monkeypatch):
    script([[started]], order, monkeypatch)
    gang = Gang(nodes=1, processes=1, index=0, endpoint="", rendezvous="")
    with pytest.raises(RetryableError, match="one was killed, and not for memory"):
        launch.run_workers(order, gang, threading.Event())


def test_workers_that_do_not_end_are_killed_within_the_grace_period(order, monkeypatch):
    hangs = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    monkeypatch.setattr(Gang, "command", lambda self, path: [sys.executable, "-c", hangs])
    stop = threading.Event()
    stop.set()
    order.signs.mkdir()
    order.sign(Flag.STARTED).touch()
    assert launch._launch(order, GANG, stop) == -signal.SIGKILL
    assert order.sign(Flag.STOP).exists()


def test_the_command_line_of_a_gang(monkeypatch):
    environment = {
        "HATCHERY_NODES": "3",
        "HATCHERY_PROCESSES_PER_NODE": "8",
        "HATCHERY_NODE_INDEX": "2",
        "HATCHERY_RENDEZVOUS_ENDPOINT": "run-0.run:29500",
        "HATCHERY_RENDEZVOUS_ID": "uid-2",
    }
    gang = Gang.from_environment(Parallelism(), environment)
    command = " ".join(gang.command(Path("order.json")))
    assert gang.workers == 24
    for part in (
        "-m torch.distributed.run --nnodes=3 --rdzv-backend=c10d --rdzv-endpoint=run-0.run:29500 --rdzv-id=uid-2",
        "is_host=0",
        "--nproc-per-node=8 --max-restarts=0 -m hatchery_jobs.pretrain.training.loop order.json",
    ):
        assert part in command
    alone = Gang.from_environment(Parallelism(), {})
    assert (alone.nodes, alone.processes) == (1, 1)
    assert "--standalone" in alone.command(Path("order.json"))


def test_processors_are_shared_by_the_processes_of_a_pod():
    def threads(processes, **environment):
        return launch.worker_environment(environment, processes)["OMP_NUM_THREADS"]

    assert threads(2, HATCHERY_CPUS="8") == "4"
    assert threads(4, HATCHERY_CPUS="1") == "1"
    assert threads(1, HATCHERY_CPUS="0") == str(len(os.sched_getaffinity(0)))  # nothing was asked for
    assert threads(2, HATCHERY_CPUS="8", OMP_NUM_THREADS="7") == "7"
