"""The training loop, as every worker runs it under torchrun: `python -m hatchery_jobs.pretrain.training.loop ORDER`.

One micro-batch of some rows is the unit of work. Batch b takes the positions b·sequences to (b+1)·sequences - 1 of the
run, cut into micro-batches that are dealt to the workers in turn. Losses are summed and divided by the labels of the
whole batch, so the gradient is the same for any number of workers; they are added in the order of the micro-batches,
so the reported curve is the same too. An update is judged before the optimizer takes it. Shapes: B rows, T tokens,
V vocabulary.
"""

import math
import sys
import time
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import torch
from transformers.utils.logging import disable_progress_bar

from hatchery_api.base import parse_duration
from hatchery_api.conditions import Reason
from hatchery_api.contract import ExitCode
from hatchery_jobs.pretrain.distributed import watchdog
from hatchery_jobs.pretrain.distributed.process_group import local_rank
from hatchery_jobs.pretrain.launcher.protocol import (
    Cause,
    WorkerFailure,
    WorkerResult,
    WorkerSpec,
    out_of_memory,
    write_ending,
    write_failure,
)
from hatchery_jobs.pretrain.result import result
from hatchery_jobs.pretrain.state import Times, Update
from hatchery_jobs.pretrain.training import guard
from hatchery_jobs.pretrain.training.schedule import learning_rate
from hatchery_jobs.pretrain.training.setup import prepare
from hatchery_jobs.pretrain.training.trainer import Trainer
from hatchery_jobs.pretrain.training.validate import measure, measure_is_due, sample
from hatchery_jobs.runtime import JobError, bind, guard_streams, log, redact


def train(order: WorkerSpec) -> WorkerResult:
    """Trains from the newest checkpoint, or from the start, to the end or until a pod is asked to end."""
    timeout = parse_duration(order.job.spec.guard.stall_timeout)
    with watchdog.started(timeout, lambda said: write_failure(order, local_rank(), hung(said))) as dog:
        run = prepare(order)
        steps, every = run.spec.schedule.steps, run.spec.checkpoint.every_steps
        with run:
            while True:
                step = run.state.step
                if measure_is_due(run):
                    if (loss := measure(run, dog)) is None:
                        return interrupted(run)
                    run.advance(evaluated_step=step, eval_loss=loss, initial_loss=run.state.initial_loss or loss)
                    run.recorder.measured(run.state, run.objective.bits_per_byte(loss))
                    sample(run, dog)
                if step == steps or (step > 0 and step % every == 0):
                    dog.beat("checkpoint")
                    run.save()
                if step == steps:
                    break
                dog.beat("update")
                update = learn(run)
                dog.beat("update", step=True)
                if update.stop and run.state.step < steps:
                    return interrupted(run)
            run.finish()
    return ending(run, "done")


def learn(run: Trainer) -> Update:
    """One update from one global batch, taken if nothing is wrong with it."""
    began = time.monotonic()
    losses, targets, stop, data_seconds = gradients(run)
    loss = math.fsum(losses) / max(1, targets)
    passed = time.monotonic()
    # the divisor so far was the expected number of labels
    norm = run.clip(run.spec.batch.sequences * run.objective.nominal_targets / max(1, targets))
    rate = learning_rate(run.state.step, run.spec.schedule)
    verdict = guard.judge(run.spec.guard, run.state, loss, norm, scaled=run.spec.precision == "fp16")
    if verdict.action == "take":
        run.step(rate)
    run.optimizer.zero_grad()
    ended = time.monotonic()
    times = Times(
        data=data_seconds, compute=passed - began - data_seconds, optimizer=ended - passed, total=ended - began
    )
    update = Update(loss=loss, norm=norm, rate=rate, targets=targets, times=times, stop=stop)
    if verdict.action == "take":
        run.took(update)
    else:
        intervene(run, verdict)
    return update


def gradients(run: Trainer) -> tuple[list[float], int, bool, float]:
    """Gradients of one global batch: this worker's micro-batches, summed with those of all others.

    Returns:
        The loss of each micro-batch in nats, the labels of the batch, whether a pod was asked to end, and the seconds
        spent on data.
    """
    sequences, rows, team = run.spec.batch.sequences, run.rows, run.team
    first, micro_batches = run.state.batch * sequences, sequences // rows
    mine = team.share(micro_batches)
    sums = torch.zeros(2 * micro_batches + 1, dtype=torch.float64, device=team.device)
    # DDP divides the sum of the gradients by the number of workers; this takes it back
    weight = team.size / (sequences * run.objective.nominal_targets)
    began = time.monotonic()
    run.objective.begin(first, sequences)
    data_seconds = time.monotonic() - began
    for number in mine:
        began = time.monotonic()
        batch = run.objective.training(first + (number % micro_batches) * rows, rows)
        data_seconds += time.monotonic() - began
        # the masks of dropout too depend on nothing but batch and micro-batch
        team.seed((run.spec.model.init_seed << 32) + run.state.batch * micro_batches + number)
        with nullcontext() if number == mine[-1] else run.no_sync():
            loss = run.objective.loss(run.learner, batch)
            team.accelerator.backward(loss * (weight if number < micro_batches else 0.0))
        if number < micro_batches:
            sums[number], sums[micro_batches + number] = loss.detach(), batch.targets
    sums[-1] = float(team.stop_wanted())
    *totals, stop = team.total(sums)
    return totals[:micro_batches], round(math.fsum(totals[micro_batches:])), stop > 0, data_seconds


def intervene(run: Trainer, verdict: guard.Verdict) -> None:
    """Leaves out a bad batch, or goes back and leaves out all since the checkpoint.

    Raises:
        SpecError: the guard is told to stop, or has helped often enough.
    """
    if verdict.reason == Reason.NON_FINITE_LOSS:
        run.recorder.not_finite()
    error = guard.hopeless(run.spec.guard, run.state, run.spec.schedule.steps, verdict)
    if error is not None:
        raise error
    bad = run.state.batch
    if verdict.action == "rollback" and run.roll_back():
        run.state = guard.left_out(run.state, run.state.batch, bad + 1)
    else:  # before the first checkpoint there is nothing to go back to, and the weights are good
        run.state = guard.left_out(run.state, bad, bad + 1)
    run.recorder.intervened(run.state, verdict.action, verdict.message)


def interrupted(run: Trainer) -> WorkerResult:
    """Saves the state and ends."""
    run.save(wait=True)
    log("interrupted", rank=run.team.rank, step=run.state.step)
    return ending(run, "interrupted")


def ending(run: Trainer, state: Literal["done", "interrupted"]) -> WorkerResult:
    """The end of a run, with its numbers."""
    return WorkerResult(state=state, result=result(run))


def leave() -> None:
    """Ends what binds the workers together."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def hung(said: str) -> WorkerFailure:
    """The failure of a worker that does nothing any more."""
    message = f"worker {local_rank()} hangs: {said}; the stacks of its threads are in its log"
    return WorkerFailure(reason=Reason.NO_PROGRESS, message=message, exit_code=ExitCode.RETRY, cause=Cause.HUNG)


def failure_of(error: Exception) -> WorkerFailure:
    """What a worker's error means."""
    if isinstance(error, JobError):
        return WorkerFailure(reason=error.reason, message=error.message, exit_code=error.exit_code)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return out_of_memory(str(error) or "out of memory", of_pod=not isinstance(error, torch.OutOfMemoryError))
    peer_lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()
    text = redact("".join(traceback.format_exception(error)))
    cause = Cause.PEER if peer_lost else Cause.OWN
    return WorkerFailure(reason=Reason.ATTEMPT_FAILED, message=text[-2000:], exit_code=ExitCode.RETRY, cause=cause)


def main(path: Path) -> int:
    """Entry point of a worker."""
    disable_progress_bar()
    order = WorkerSpec.model_validate_json(path.read_bytes())
    bind(order.job)
    rows = order.micro_batch()
    try:
        end = train(order)
    except Exception as error:  # noqa: BLE001 - torchrun would lose it; the launcher decides
        log("error", level="error", rank=local_rank(), trace=traceback.format_exc())
        failure = failure_of(error)
        if failure.cause == Cause.MEMORY:
            order.halve_micro_batch(rows)  # before the others can notice, so that all read the same
        write_failure(order, local_rank(), failure)
        return 1
    if local_rank() == 0:
        write_ending(order, end)
    leave()
    return 0


if __name__ == "__main__":
    guard_streams()
    sys.exit(main(Path(sys.argv[1])))
