"""The training loop, as every worker runs it under torchrun: `python -m hatchery_jobs.pretrain.loop ORDER`.

One micro-batch of `batch.perDevice` rows is the unit of work. Update s learns from the positions
s·sequences … (s+1)·sequences-1 of the run, cut into micro-batches, dealt to the workers in turn. Each loss is divided by
the tokens of the whole batch, so the gradient is the same for any number of workers; losses are added in the order of the
micro-batches, so the reported curve is the same too. Shapes: B rows, T tokens, V vocabulary.
"""

import math
import sys
import time
import traceback
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows

from hatchery_api.conditions import Reason
from hatchery_api.contract import ExitCode
from hatchery_api.pretrain import LastCheckpoint, Loss, PretrainResult, PretrainRunSpec
from hatchery_jobs.errors import JobError, RetryableError, SpecError
from hatchery_jobs.pretrain.checkpoint import Checkpoints, RunState
from hatchery_jobs.pretrain.data import SequenceOrder, Tokens, TokenStore
from hatchery_jobs.pretrain.model import build_model
from hatchery_jobs.pretrain.optimizer import build_optimizer
from hatchery_jobs.pretrain.orders import CHECKPOINTS, Ending, Failure, Sign, WorkOrder, write_ending, write_failure
from hatchery_jobs.pretrain.record import Recorder
from hatchery_jobs.pretrain.schedule import learning_rate
from hatchery_jobs.pretrain.shape import resolve_shape
from hatchery_jobs.pretrain.team import Team, gather_team, local_rank
from hatchery_jobs.run import log


@dataclass(frozen=True)
class Update:
    """One optimizer step."""

    loss: float
    norm: float
    data_seconds: float
    stop: bool


@dataclass
class Trainer:
    """What the steps of the loop work on."""

    team: Team
    spec: PretrainRunSpec
    store: TokenStore
    positions: SequenceOrder
    model: torch.nn.Module
    optimizer: Any
    checkpoints: Checkpoints
    state: RunState

    @property
    def module(self) -> torch.nn.Module:
        """The model without DDP around it."""
        return getattr(self.model, "module", self.model)

    @property
    def tokens_per_step(self) -> int:
        """Tokens learnt from in one update."""
        return self.spec.batch.sequences * self.spec.data.sequence_length

    def advance(self, **changes: Any) -> None:
        """Changes the state."""
        self.state = self.state.model_copy(update=changes)


def train(order: WorkOrder) -> Ending:
    """Trains from the newest checkpoint, or from the start, to the end or until a pod is asked to end."""
    run = prepare(order)
    steps, every = run.spec.schedule.steps, run.spec.checkpoint.every_steps
    with ExitStack() as stack:
        recorder = stack.enter_context(Recorder(order, run.state, run.tokens_per_step)) if run.team.leads else None
        while True:
            step = run.state.step
            if measure_is_due(run.spec, step) and run.state.evaluated_step < step:
                loss = measure(run)
                if loss is None:
                    return interrupted(run, recorder)
                run.advance(evaluated_step=step, eval_loss=loss, initial_loss=run.state.initial_loss or loss)
                if recorder:
                    recorder.measured(run.state, bits_per_byte(loss, run.store))
            if step and (step % every == 0 or step == steps):
                save(run, recorder)
            if step == steps:
                break

            began = time.monotonic()
            rate = learning_rate(step, run.spec.schedule)
            update = learn(run, step, rate)
            if not math.isfinite(update.loss + update.norm) and not (
                run.spec.precision == "fp16" and math.isfinite(update.loss)  # its scaler skips such a step by itself
            ):
                raise not_finite(run, recorder, update)
            seconds = time.monotonic() - began
            run.advance(step=step + 1, train_loss=update.loss, train_seconds=run.state.train_seconds + seconds)
            if recorder:
                recorder.updated(run.state, rate, update.norm, seconds, update.data_seconds)
            if update.stop and run.state.step < steps:
                return interrupted(run, recorder)
    if run.team.leads:
        run.module.save_pretrained(order.folder)
    return Ending(state="done", result=result(run))


def prepare(order: WorkOrder) -> Trainer:
    """Model, optimizer and data, at the newest checkpoint."""
    spec = order.job.spec
    team = gather_team(order)
    order.sign(Sign.STARTED).touch()
    store = TokenStore(order.tokens, spec.data.sequence_length)
    shape = resolve_shape(spec.model, spec.data.sequence_length, store.index.vocab_size)
    model = build_model(
        shape, store.index.eos_id, spec.model.init_seed, gradient_checkpointing=spec.gradient_checkpointing
    ).to(team.device)
    optimizer = build_optimizer(model, spec.optimizer, spec.schedule.peak_lr)
    checkpoints = Checkpoints(order.folder / CHECKPOINTS, spec.checkpoint.keep_last)
    state = resume(team, checkpoints, model, optimizer)
    model, optimizer = team.accelerator.prepare(model, optimizer)
    if state.loss_scale and team.accelerator.scaler:
        team.accelerator.scaler.load_state_dict(state.loss_scale)
    positions = SequenceOrder(spec.data.shuffle.seed, store.sequences("train"))
    log(
        "training",
        rank=team.rank,
        workers=team.size,
        device=str(team.device),
        step=state.step,
        parameters=shape.parameters,
    )
    return Trainer(team, spec, store, positions, model, optimizer, checkpoints, state)


def resume(team: Team, checkpoints: Checkpoints, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> RunState:
    """Loads the newest complete checkpoint; the lead chooses, so that all take the same one.

    Raises:
        RetryableError: this worker cannot read what the lead can.
    """
    newest = team.told_by_lead(checkpoints.newest() if team.leads else None)
    if newest is None:
        return RunState()
    try:
        state = checkpoints.load(newest.step, model, optimizer)
    except FileNotFoundError as error:
        raise RetryableError(
            Reason.STORAGE_ERROR,
            f"{error.filename}: worker {team.rank} cannot read the checkpoint that worker {team.lead_rank} wrote; "
            "all pods must mount the same volume: use a ReadWriteMany claim in spec.storage, or one node",
        ) from error
    return state.model_copy(update={"resumed_from": [*state.resumed_from, state.step]})


def learn(run: Trainer, step: int, rate: float) -> Update:
    """One update from one global batch; this worker's share of it, and the sum with all others."""
    spec, team, rows = run.spec, run.team, run.spec.batch.per_device
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
    return Update(math.fsum(nats) / run.tokens_per_step, float(norm), data_seconds, stop > 0)


def measure_is_due(spec: PretrainRunSpec, step: int) -> bool:
    """Before the first update, after the last, and every so many between."""
    return spec.evaluate.batches != 0 and (step % spec.evaluate.every_steps == 0 or step == spec.schedule.steps)


@torch.no_grad()
def measure(run: Trainer) -> float | None:
    """Loss on the validation split in nats per token; None when a pod is asked to end meanwhile."""
    spec, team, rows = run.spec, run.team, run.spec.batch.per_device
    sequences = run.store.sequences("validation")
    if spec.evaluate.batches > 0:
        sequences = min(sequences, spec.evaluate.batches * spec.batch.sequences)
    micro_batches = math.ceil(sequences / rows)
    losses = torch.zeros(micro_batches, dtype=torch.float64, device=team.device)
    run.module.eval()
    try:
        for first in range(0, micro_batches, team.size):
            if team.agree_to_stop():
                return None
            number = first + team.rank
            if number < micro_batches:
                numbers = range(number * rows, min((number + 1) * rows, sequences))
                inputs, targets = to_device(run.store.rows("validation", numbers), team.device)
                logits = run.module(input_ids=inputs, use_cache=False).logits  # (B, T, V)
                losses[number] = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    finally:
        run.module.train()
    return math.fsum(team.total(losses)) / (sequences * spec.data.sequence_length)


def to_device(sequences: Tokens, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets, both (B, T): each target is the token after its input."""
    tokens = torch.from_numpy(sequences).to(device)
    return tokens[:, :-1], tokens[:, 1:]


def bits_per_byte(loss: float, store: TokenStore) -> float:
    """A loss in nats per token as bits per byte of validation text."""
    split = store.index.splits["validation"]
    return loss / math.log(2) * split.tokens / split.text_bytes


def save(run: Trainer, recorder: Recorder | None) -> None:
    """Writes a checkpoint of this step unless there is one; the other workers go on meanwhile."""
    if run.state.checkpoint_step == run.state.step:
        return
    began = time.monotonic()
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    scaler = run.team.accelerator.scaler
    run.advance(checkpoint_step=run.state.step, checkpoint_time=now, loss_scale=scaler.state_dict() if scaler else None)
    if recorder:
        run.advance(curve_bytes=recorder.curve_bytes())
        run.checkpoints.save(run.state, run.module, run.optimizer.state_dict())
        recorder.saved(run.state, began)


def interrupted(run: Trainer, recorder: Recorder | None) -> Ending:
    """Saves the state and ends."""
    save(run, recorder)
    log("interrupted", rank=run.team.rank, step=run.state.step)
    return Ending(state="interrupted", result=result(run))


def not_finite(run: Trainer, recorder: Recorder | None, update: Update) -> SpecError:
    """The error of a loss or gradient that is no number."""
    if recorder:
        recorder.not_finite()
    return SpecError(
        Reason.NON_FINITE_LOSS,
        f"update {run.state.step + 1} of {run.spec.schedule.steps}: loss {update.loss}, gradient norm {update.norm}; "
        "lower spec.schedule.peakLr or spec.optimizer.clipNorm, or raise spec.schedule.warmupSteps",
    )


def result(run: Trainer) -> PretrainResult:
    """The numbers of the run so far."""
    state = run.state
    loss = state.eval_loss
    return PretrainResult(
        parameters=sum(p.numel() for p in run.module.parameters()),
        tokens_per_step=run.tokens_per_step,
        step=state.step,
        steps=run.spec.schedule.steps,
        tokens=state.step * run.tokens_per_step,
        loss=Loss(train=state.train_loss, eval=loss, initial=state.initial_loss),
        perplexity=None if loss is None else perplexity(loss),
        initial_perplexity=None if state.initial_loss is None else perplexity(state.initial_loss),
        bits_per_byte=None if loss is None else bits_per_byte(loss, run.store),
        tokens_per_second=state.step * run.tokens_per_step / state.train_seconds if state.train_seconds else None,
        last_checkpoint=LastCheckpoint(step=state.checkpoint_step, time=state.checkpoint_time)
        if state.checkpoint_step is not None and state.checkpoint_time
        else None,
        resumed_from=state.resumed_from or None,
    )


def perplexity(loss: float) -> float:
    """exp of a loss; a hopeless one is a very large number, since JSON has no infinity."""
    return math.exp(min(loss, 700.0))


def failure_of(error: Exception) -> Failure:
    """What a worker's error means."""
    if isinstance(error, JobError):
        return Failure(reason=error.reason, message=error.message, exit_code=error.exit_code)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return Failure(
            reason=Reason.OUT_OF_MEMORY,
            message=f"{error}; lower spec.batch.perDevice or set spec.gradientCheckpointing",
            exit_code=ExitCode.RETRY,
        )
    peer_lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()
    text = "".join(traceback.format_exception(error))
    return Failure(reason=Reason.ATTEMPT_FAILED, message=text[-2000:], exit_code=ExitCode.RETRY, peer_lost=peer_lost)


def main(path: Path) -> int:
    """Entry point of a worker."""
    order = WorkOrder.model_validate_json(path.read_bytes())
    try:
        ending = train(order)
    except Exception as error:  # noqa: BLE001 - torchrun would lose it; the launcher decides
        traceback.print_exc()
        write_failure(order, local_rank(), failure_of(error))
        return 1
    if local_rank() == 0:
        write_ending(order, ending)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
