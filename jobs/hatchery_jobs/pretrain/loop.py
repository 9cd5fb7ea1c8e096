"""The training loop, as every worker runs it under torchrun: `python -m hatchery_jobs.pretrain.loop ORDER`.

One micro-batch of `batch.perDevice` rows is the unit of work. Update s learns from the positions s·sequences to
(s+1)·sequences - 1 of the run, cut into micro-batches that are dealt to the workers in turn. Each loss is divided by
the tokens of the whole batch, so the gradient is the same for any number of workers; losses are added in the order of
the micro-batches, so the reported curve is the same too. Shapes: B rows, T tokens, V vocabulary.
"""

import math
import sys
import time
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from transformers.utils.logging import disable_progress_bar

from hatchery_api.conditions import Reason
from hatchery_api.contract import ExitCode
from hatchery_jobs.errors import JobError, SpecError
from hatchery_jobs.logs import bind, guard_streams, log, redact
from hatchery_jobs.pretrain.measure import bits_per_byte, measure, measure_is_due
from hatchery_jobs.pretrain.orders import Ending, Failure, WorkOrder, write_ending, write_failure
from hatchery_jobs.pretrain.schedule import learning_rate
from hatchery_jobs.pretrain.state import Update
from hatchery_jobs.pretrain.team import local_rank
from hatchery_jobs.pretrain.trainer import Trainer, prepare, result, to_device


def train(order: WorkOrder) -> Ending:
    """Trains from the newest checkpoint, or from the start, to the end or until a pod is asked to end."""
    run = prepare(order)
    steps, every = run.spec.schedule.steps, run.spec.checkpoint.every_steps
    with run.recorder:
        while True:
            step = run.state.step
            if measure_is_due(run):
                loss = measure(run)
                if loss is None:
                    return interrupted(run)
                run.advance(evaluated_step=step, eval_loss=loss, initial_loss=run.state.initial_loss or loss)
                run.recorder.measured(run.state, bits_per_byte(loss, run.store))
            if step == steps or (step > 0 and step % every == 0):
                run.save()
            if step == steps:
                break
            update = learn(run, step)
            if not is_finite(run, update):
                raise not_finite(run, update)
            seconds = run.state.train_seconds + update.seconds
            run.advance(step=step + 1, train_loss=update.loss, train_seconds=seconds)
            run.recorder.updated(run.state, update)
            if update.stop and run.state.step < steps:
                return interrupted(run)
    leave()
    if run.team.leads:
        run.module.save_pretrained(order.folder)
    return ending(run, "done")


def leave() -> None:
    """Ends what binds the workers together; only then does transformers save from a worker of any rank."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def learn(run: Trainer, step: int) -> Update:
    """One update from one global batch: this worker's micro-batches, summed with those of all others."""
    started = time.monotonic()
    spec, team, rows = run.spec, run.team, run.spec.batch.per_device
    rate = learning_rate(step, spec.schedule)
    micro_batches = spec.batch.sequences // rows
    mine = team.share(micro_batches)
    losses = torch.zeros(micro_batches + 1, dtype=torch.float64, device=team.device)
    data_seconds = 0.0
    for number in mine:
        began = time.monotonic()
        first = step * spec.batch.sequences + number * rows
        sequences = run.store.rows("train", run.positions(range(first, first + rows)))
        inputs, targets = to_device(sequences, team.device)
        data_seconds += time.monotonic() - began
        if spec.model.overrides.dropout:  # the masks too depend on nothing but step and micro-batch
            torch.manual_seed((spec.model.init_seed << 32) + step * micro_batches + number)
        with nullcontext() if number == mine[-1] else team.accelerator.no_sync(run.model):
            logits = run.model(input_ids=inputs, use_cache=False).logits  # (B, T, V)
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
            # DDP divides the sum of the gradients by the number of workers; this takes it back
            team.accelerator.backward(loss * (team.size / run.tokens_per_step))
        losses[number] = loss.detach()
    norm = team.accelerator.clip_grad_norm_(run.model.parameters(), spec.optimizer.clip_norm)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.step()
    run.optimizer.zero_grad()
    losses[-1] = float(team.stop_wanted())
    *nats, stop = team.total(losses)
    return Update(
        loss=math.fsum(nats) / run.tokens_per_step,
        norm=float(norm),
        rate=rate,
        seconds=time.monotonic() - started,
        data_seconds=data_seconds,
        stop=stop > 0,
    )


def is_finite(run: Trainer, update: Update) -> bool:
    """Whether training can go on. In fp16 a gradient may overflow: its scaler then leaves the weights as they are."""
    return math.isfinite(update.loss) and (math.isfinite(update.norm) or run.spec.precision == "fp16")


def not_finite(run: Trainer, update: Update) -> SpecError:
    """The error of a loss or gradient that is no number."""
    run.recorder.not_finite()
    return SpecError(
        Reason.NON_FINITE_LOSS,
        f"update {run.state.step + 1} of {run.spec.schedule.steps}: loss {update.loss}, gradient norm {update.norm}; "
        "lower spec.schedule.peakLr or spec.optimizer.clipNorm, or raise spec.schedule.warmupSteps",
    )


def interrupted(run: Trainer) -> Ending:
    """Saves the state and ends."""
    run.save()
    log("interrupted", rank=run.team.rank, step=run.state.step)
    return ending(run, "interrupted")


def ending(run: Trainer, state: Literal["done", "interrupted"]) -> Ending:
    """The end of a run, with its numbers."""
    loss = run.state.eval_loss
    return Ending(state=state, result=result(run, None if loss is None else bits_per_byte(loss, run.store)))


def failure_of(error: Exception) -> Failure:
    """What a worker's error means."""
    if isinstance(error, JobError):
        return Failure(reason=error.reason, message=error.message, exit_code=error.exit_code)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        is_device = isinstance(error, torch.OutOfMemoryError)
        more = "" if is_device else "raise spec.placement.resources.limits.memory, "
        remedy = f"{more}lower spec.batch.perDevice or set spec.gradientCheckpointing"
        said = f"{str(error) or 'out of memory'}; {remedy}"
        return Failure(reason=Reason.OUT_OF_MEMORY, message=said, exit_code=ExitCode.RETRY)
    peer_lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()
    text = redact("".join(traceback.format_exception(error)))
    return Failure(reason=Reason.ATTEMPT_FAILED, message=text[-2000:], exit_code=ExitCode.RETRY, peer_lost=peer_lost)


def main(path: Path) -> int:
    """Entry point of a worker."""
    disable_progress_bar()
    order = WorkOrder.model_validate_json(path.read_bytes())
    bind(order.job)
    try:
        end = train(order)
    except Exception as error:  # noqa: BLE001 - torchrun would lose it; the launcher decides
        log("error", rank=local_rank(), trace=traceback.format_exc())
        write_failure(order, local_rank(), failure_of(error))
        return 1
    if local_rank() == 0:
        write_ending(order, end)
    leave()
    return 0


if __name__ == "__main__":
    guard_streams()
    sys.exit(main(Path(sys.argv[1])))
