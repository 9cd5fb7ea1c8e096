"""The launcher with scripted workers: restarts, termination, memory and the torchrun command line."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from hatchery_api.contract import ExitCode
from hatchery_api.resources.pretrain import Parallelism
from hatchery_jobs.pretrain.launcher import Cause, Flag, Gang, WorkerFailure, WorkerResult, WorkerSpec, cgroup
from hatchery_jobs.pretrain.launcher import launcher as launch
from hatchery_jobs.pretrain.launcher.restarts import MAX_FAILED_RENDEZVOUS, MAX_HANGS
from hatchery_jobs.runtime.errors import RetryableError, SpecError


@pytest.fixture
def worker(bench, inputs):
    context = bench.context("train", inputs, checkpoint={"gracePeriod": "6s"})
    return WorkerSpec(
        job=context.job,
        tokens=bench.root,
        folder=bench.root,
        tokenizer=bench.root,
        local_folder=bench.root / "local",
        first_node=True,
    )


def script(gang_launches, worker, monkeypatch):
    """Replaces torchrun by what its launches would leave, one after the other."""
    launches = iter(gang_launches)

    def run_once(worker, gang, stop):
        for leave in next(launches):
            leave(worker)
        return 1

    monkeypatch.setattr(launch, "_launch", run_once)
    monkeypatch.setattr(launch, "RELAUNCH_WAIT_SECONDS", 0.0)


def started(worker):
    worker.flag(Flag.STARTED).touch()


def done(worker):
    worker.write_result(WorkerResult(state="done", result={"step": 7}))


def peer_interrupted(worker):
    worker.write_result(WorkerResult(state="interrupted", result={"step": 3}))


def fails(reason="AttemptFailed", code=ExitCode.RETRY, rank=0, **more):
    return lambda worker: worker.write_failure(
        rank, WorkerFailure(reason=reason, message=f"worker {rank}", exit_code=code, **more)
    )


GANG = Gang(nodes=2, processes=1, index=1, endpoint="run-0.run:29500", rendezvous="uid-1")


def test_lost_peers_are_waited_for(worker, monkeypatch):
    script([[started, peer_interrupted], [], [started, fails(cause=Cause.PEER)], [started, done]], worker, monkeypatch)
    assert launch.run_workers(worker, GANG, threading.Event()).result.step == 7


def test_an_error_of_a_worker_itself_ends_the_run(worker, monkeypatch):
    own = fails("NonFiniteLoss", ExitCode.SPEC_ERROR, rank=1)
    script([[started, fails(cause=Cause.PEER), own]], worker, monkeypatch)
    with pytest.raises(SpecError, match="worker 1") as e:
        launch.run_workers(worker, GANG, threading.Event())
    assert e.value.reason == "NonFiniteLoss"


def test_workers_that_hang_are_started_again_but_not_for_ever(worker, monkeypatch):
    hangs = [started, fails("NoProgress", cause=Cause.HUNG)]
    script([hangs, hangs, [started, done]], worker, monkeypatch)
    assert launch.run_workers(worker, GANG, threading.Event()).result.step == 7
    script([hangs] * MAX_HANGS, worker, monkeypatch)
    with pytest.raises(RetryableError) as e:
        launch.run_workers(worker, GANG, threading.Event())
    assert e.value.reason == "NoProgress"


def test_a_device_that_is_too_small_gets_half_the_rows_and_all_pods_know(worker, monkeypatch):
    def too_small(rank):
        def leave(worker):
            worker.halve_micro_batch(worker.micro_batch())
            fails("OutOfMemory", cause=Cause.MEMORY, rank=rank)(worker)

        return leave

    assert worker.micro_batch() == 2
    script([[started, too_small(1)], [started, done]], worker, monkeypatch)
    assert launch.run_workers(worker, GANG, threading.Event()).result.step == 7
    assert worker.micro_batch() == 1
    script([[started, too_small(0)]], worker, monkeypatch)  # one row cannot be halved
    with pytest.raises(RetryableError) as e:
        launch.run_workers(worker, GANG, threading.Event())
    assert e.value.reason == "OutOfMemory"


@pytest.fixture
def kills(tmp_path, monkeypatch):
    """Counts workers that the kernel kills for memory."""
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    events = tmp_path / "memory.events"
    events.write_text("oom_kill 0\n")

    def killed(*flags):
        def leave(worker):
            count = int(events.read_text().split()[1])
            events.write_text(f"oom_kill {count + 1}\n")
            for flag in flags:
                worker.flag(flag).touch()

        return leave

    return killed


def test_a_worker_killed_for_memory_is_followed_by_ones_with_half_the_rows(worker, monkeypatch, kills):
    killed, peer = kills(Flag.STARTED, Flag.ON_CPU), fails(cause=Cause.PEER, rank=1)
    script([[killed, peer], [started, done]], worker, monkeypatch)
    assert launch.run_workers(worker, GANG, threading.Event()).result.step == 7
    assert worker.micro_batch() == 1
    script([[killed, peer]], worker, monkeypatch)  # one row cannot be halved
    with pytest.raises(RetryableError, match=r"killed for memory; raise spec\.placement\.resources\.limits") as e:
        launch.run_workers(worker, GANG, threading.Event())
    assert e.value.reason == "OutOfMemory"


def test_a_worker_with_a_gpu_that_was_killed_for_memory_of_the_pod_keeps_its_rows(worker, monkeypatch, kills):
    script([[kills(Flag.STARTED)]], worker, monkeypatch)
    with pytest.raises(RetryableError) as e:
        launch.run_workers(worker, GANG, threading.Event())
    assert (e.value.reason, worker.micro_batch()) == ("OutOfMemory", 2)


def changed(worker, per_device, **job):
    """A worker with another micro-batch, or of another attempt."""
    batch = worker.job.spec.batch.model_copy(update={"per_device": per_device})
    spec = worker.job.spec.model_copy(update={"batch": batch})
    return worker.model_copy(update={"job": worker.job.model_copy(update={"spec": spec, **job})})


def rows_of(worker, per_device=2, **job):
    """Rows with which an attempt starts on CPUs."""
    attempt = changed(worker, per_device, **job)
    attempt.halve_after_oom_kill()
    return attempt.micro_batch()


def test_workers_that_run_out_of_memory_together_halve_once(worker):
    worker = changed(worker, per_device=12)
    worker.halve_micro_batch(12)
    worker.halve_micro_batch(12)
    assert worker.micro_batch() == 6
    worker.halve_micro_batch(6)
    assert worker.micro_batch() == 3


def test_a_pod_that_was_killed_for_memory_is_followed_by_one_with_half_the_rows(worker):
    assert rows_of(worker) == 2
    assert rows_of(worker, attempt=2, earlier_failure="HubUnavailable") == 2
    assert rows_of(worker, attempt=3, earlier_failure="OutOfMemory") == 1


def test_each_kill_for_memory_halves_once_however_often_the_attempt_starts(worker):
    rows = [rows_of(worker, 12, attempt=n, earlier_failure="OutOfMemory") for n in (2, 2, 3, 3, 4, 5)]
    assert rows == [6, 6, 3, 3, 1, 1]


def test_pods_that_never_meet_give_up(worker, monkeypatch):
    script([[]] * MAX_FAILED_RENDEZVOUS, worker, monkeypatch)
    with pytest.raises(RetryableError, match=r"2 pods did not meet at run-0\.run:29500"):
        launch.run_workers(worker, GANG, threading.Event())


def test_a_killed_worker_of_a_single_pod_is_reported(worker, monkeypatch):
    script([[started]], worker, monkeypatch)
    gang = Gang(nodes=1, processes=1, index=0, endpoint="", rendezvous="")
    with pytest.raises(RetryableError, match="a worker was killed, but not for memory"):
        launch.run_workers(worker, gang, threading.Event())


def test_workers_that_do_not_end_are_killed_within_the_grace_period(worker, monkeypatch):
    hangs = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    monkeypatch.setattr(Gang, "command", lambda self, path: [sys.executable, "-c", hangs])
    stop = threading.Event()
    stop.set()
    worker.local_folder.mkdir()
    worker.flag(Flag.STARTED).touch()
    assert launch._launch(worker, GANG, stop) == -signal.SIGKILL
    assert worker.flag(Flag.STOP).exists()


def test_the_command_line_of_a_gang(monkeypatch):
    environment = {
        "HATCHERY_NODES": "3",
        "HATCHERY_PROCESSES_PER_NODE": "8",
        "HATCHERY_NODE_INDEX": "2",
        "HATCHERY_RENDEZVOUS_ENDPOINT": "run-0.run:29500",
        "HATCHERY_RENDEZVOUS_ID": "uid-2",
    }
    gang = Gang.from_environment(Parallelism(), environment)
    command = " ".join(gang.command(Path("worker.json")))
    assert gang.workers == 24
    for part in (
        "-m torch.distributed.run --nnodes=3 --rdzv-backend=c10d --rdzv-endpoint=run-0.run:29500 --rdzv-id=uid-2",
        "is_host=0",
        "--nproc-per-node=8 --max-restarts=0 -m hatchery_jobs.pretrain.training.loop worker.json",
    ):
        assert part in command
    alone = Gang.from_environment(Parallelism(), {})
    assert (alone.nodes, alone.processes) == (1, 1)
    assert "--standalone" in alone.command(Path("worker.json"))


def test_processors_are_shared_by_the_processes_of_a_pod():
    def threads(processes, **environment):
        return launch.worker_environment(environment, processes)["OMP_NUM_THREADS"]

    assert threads(2, HATCHERY_CPUS="8") == "4"
    assert threads(4, HATCHERY_CPUS="1") == "1"
    assert threads(1, HATCHERY_CPUS="0") == str(len(os.sched_getaffinity(0)))  # nothing was asked for
    assert threads(2, HATCHERY_CPUS="8", OMP_NUM_THREADS="7") == "7"
