"""The training loop of one worker under torchrun: `python -m hatchery_jobs.pretrain.training.loop WORKER_SPEC`.

The unit of work is a micro-batch of rows. Batch b takes the positions b·sequences to (b+1)·sequences - 1 of the run,
cut into micro-batches that the workers compute in turn. Losses are summed and divided by the labels of the whole
batch, so that the gradient is the same for any number of workers. They are added in the order of the micro-batches, so
that the reported curve is the same too. An update is judged before the optimizer step. Shapes: B rows, T tokens, V
vocabulary.
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
from hatchery_jobs.pretrain.distributed import Watchdog, local_rank
from hatchery_jobs.pretrain.launcher import Cause, WorkerFailure, WorkerResult, WorkerSpec
from hatchery_jobs.pretrain.state import Times, Update
from hatchery_jobs.pretrain.training.guard import GuardVerdict, judge, stop_error, with_skipped
from hatchery_jobs.pretrain.training.schedule import learning_rate
from hatchery_jobs.pretrain.training.setup import set_up
from hatchery_jobs.pretrain.training.trainer import Trainer
from hatchery_jobs.pretrain.training.validate import sample, validate, validation_is_due
from hatchery_jobs.runtime import JobError, bind, guard_streams, log, redact


def train(worker: WorkerSpec) -> WorkerResult:
    """Trains from the newest checkpoint, or from the start, until the run is done or a pod receives SIGTERM."""
    timeout = parse_duration(worker.job.spec.guard.stall_timeout)
    with Watchdog(timeout, lambda hang: worker.write_failure(local_rank(), hung(hang))) as dog:
        run = set_up(worker)
        steps, every = run.spec.schedule.steps, run.spec.checkpoint.every_steps
        with run:
            while True:
                step = run.state.step
                if validation_is_due(run):
                    if (loss := validate(run, dog)) is None:
                        return interrupted(run)
                    run.advance(evaluated_step=step, eval_loss=loss, initial_loss=run.state.initial_loss or loss)
                    run.recorder.validated(run.state, run.objective.bits_per_byte(loss))
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
    return worker_result(run, "done")


def learn(run: Trainer) -> Update:
    """One update from one global batch; a bad one goes to the guard instead of the optimizer."""
    began = time.monotonic()
    losses, targets, stop, data_seconds = gradients(run)
    loss = math.fsum(losses) / max(1, targets)
    passed = time.monotonic()
    # the gradients were divided by the expected number of labels
    norm = run.clip(run.spec.batch.sequences * run.objective.nominal_targets / max(1, targets))
    rate = learning_rate(run.state.step, run.spec.schedule)
    verdict = judge(run.spec.guard, run.state, loss, norm, scaled=run.spec.precision == "fp16")
    if verdict.action == "accept":
        run.step(rate)
    run.optimizer.zero_grad()
    ended = time.monotonic()
    times = Times(
        data=data_seconds, compute=passed - began - data_seconds, optimizer=ended - passed, total=ended - began
    )
    update = Update(loss=loss, norm=norm, rate=rate, targets=targets, times=times, stop=stop)
    if verdict.action == "accept":
        run.record_update(update)
    else:
        intervene(run, verdict)
    return update


def gradients(run: Trainer) -> tuple[list[float], int, bool, float]:
    """Gradients of one global batch, accumulated over this worker's micro-batches and reduced over all workers.

    Returns:
        The loss of each micro-batch in nats, the labels of the batch, whether a pod received SIGTERM, and the seconds
        spent on data.
    """
    sequences, rows, group = run.spec.batch.sequences, run.rows, run.group
    first, micro_batches = run.state.batch * sequences, sequences // rows
    numbers = group.share(micro_batches)
    sums = torch.zeros(2 * micro_batches + 1, dtype=torch.float64, device=group.device)
    # DDP averages gradients over the workers; the factor group.size turns the average into a sum
    weight = group.size / (sequences * run.objective.nominal_targets)
    began = time.monotonic()
    run.objective.begin(first, sequences)
    data_seconds = time.monotonic() - began
    for number in numbers:
        began = time.monotonic()
        batch = run.objective.training(first + (number % micro_batches) * rows, rows)
        data_seconds += time.monotonic() - began
        # so dropout masks too depend only on batch and micro-batch
        group.seed((run.spec.model.init_seed << 32) + run.state.batch * micro_batches + number)
        with nullcontext() if number == numbers[-1] else run.no_sync():
            loss = run.objective.loss(run.train_model, batch)
            group.accelerator.backward(loss * (weight if number < micro_batches else 0.0))
        if number < micro_batches:
            sums[number], sums[micro_batches + number] = loss.detach(), batch.targets
    sums[-1] = float(group.stop_requested())
    *totals, stop = group.all_reduce(sums)
    return totals[:micro_batches], round(math.fsum(totals[micro_batches:])), stop > 0, data_seconds


def intervene(run: Trainer, verdict: GuardVerdict) -> None:
    """Skips a bad batch, or rolls back and skips all batches since the checkpoint.

    Raises:
        SpecError: `spec.guard` says stop, or the guard has intervened too often.
    """
    if verdict.reason == Reason.NON_FINITE_LOSS:
        run.recorder.nonfinite_loss()
    error = stop_error(run.spec.guard, run.state, run.spec.schedule.steps, verdict)
    if error is not None:
        raise error
    bad = run.state.batch
    if verdict.action == "rollback" and run.roll_back():
        run.state = with_skipped(run.state, run.state.batch, bad + 1)
    else:  # before the first checkpoint there is nothing to restore, and the weights are good
        run.state = with_skipped(run.state, bad, bad + 1)
    run.recorder.intervened(run.state, verdict.action, verdict.message)


def interrupted(run: Trainer) -> WorkerResult:
    """Saves a checkpoint after a pod received SIGTERM."""
    run.save(wait=True)
    log("interrupted", rank=run.group.rank, step=run.state.step)
    return worker_result(run, "interrupted")


def worker_result(run: Trainer, state: Literal["done", "interrupted"]) -> WorkerResult:
    """The result of this worker."""
    return WorkerResult(state=state, result=run.result())


def hung(detail: str) -> WorkerFailure:
    """The failure of a hung worker."""
    message = f"worker {local_rank()} hangs: {detail}; its log has the stacks of its threads"
    return WorkerFailure(reason=Reason.NO_PROGRESS, message=message, exit_code=ExitCode.RETRY, cause=Cause.HUNG)


def classify_error(error: Exception) -> WorkerFailure:
    """The failure that a worker's exception means."""
    if isinstance(error, JobError):
        return WorkerFailure(reason=error.reason, message=error.message, exit_code=error.exit_code)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        detail = str(error) or "out of memory"
        return WorkerFailure.out_of_memory(detail, of_pod=not isinstance(error, torch.OutOfMemoryError))
    peer_lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()
    text = redact("".join(traceback.format_exception(error)))
    cause = Cause.PEER if peer_lost else Cause.OWN
    return WorkerFailure(reason=Reason.ATTEMPT_FAILED, message=text[-2000:], exit_code=ExitCode.RETRY, cause=cause)


def main(path: Path) -> int:
    """Entry point of a worker."""
    disable_progress_bar()
    worker = WorkerSpec.model_validate_json(path.read_bytes())
    bind(worker.job)
    rows = worker.micro_batch()
    try:
        result = train(worker)
    except Exception as error:  # noqa: BLE001 - torchrun would lose it; the launcher decides
        log("error", level="error", rank=local_rank(), trace=traceback.format_exc())
        failure = classify_error(error)
        if failure.cause == Cause.MEMORY:
            worker.halve_micro_batch(rows)  # before any worker is launched again, so that all read the same
        worker.write_failure(local_rank(), failure)
        return 1
    if local_rank() == 0:
        worker.write_result(result)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    guard_streams()
    sys.exit(main(Path(sys.argv[1])))
