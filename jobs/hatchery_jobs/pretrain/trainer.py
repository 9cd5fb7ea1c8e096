"""A run as a worker holds it: made from the newest checkpoint, saved into the next one."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from hatchery_api.conditions import Reason
from hatchery_api.pretrain import PretrainRunSpec
from hatchery_api.pretrain_result import LastCheckpoint, Loss, PretrainResult
from hatchery_jobs.errors import RetryableError
from hatchery_jobs.logs import log
from hatchery_jobs.pretrain.checkpoint import Checkpoints
from hatchery_jobs.pretrain.data import TokenStore
from hatchery_jobs.pretrain.order import SequenceOrder
from hatchery_jobs.pretrain.rows import Tokens
from hatchery_jobs.pretrain.model import build_model
from hatchery_jobs.pretrain.optimizer import build_optimizer
from hatchery_jobs.pretrain.orders import CHECKPOINTS, Sign, WorkOrder
from hatchery_jobs.pretrain.record import Recorder, Silence
from hatchery_jobs.pretrain.shape import resolve_shape
from hatchery_jobs.pretrain.state import RunState, perplexity
from hatchery_jobs.pretrain.team import Team, gather_team


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
    recorder: Silence

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

    def save(self) -> None:
        """Writes a checkpoint of this step unless there is one; the other workers go on meanwhile."""
        if self.state.checkpoint_step == self.state.step:
            return
        began = time.monotonic()
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.advance(checkpoint_step=self.state.step, checkpoint_time=now)
        if isinstance(self.recorder, Recorder):
            scaler = self.team.accelerator.scaler
            self.advance(curve_bytes=self.recorder.curve_bytes(), loss_scale=scaler.state_dict() if scaler else None)
            self.checkpoints.save(self.state, self.module, self.optimizer.state_dict())
            self.recorder.saved(self.state, began)


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
    log("training", rank=team.rank, workers=team.size, device=str(team.device), step=state.step)
    return Trainer(
        team=team,
        spec=spec,
        store=store,
        positions=SequenceOrder(spec.data.shuffle.seed, store.sequences("train")),
        model=model,
        optimizer=optimizer,
        checkpoints=checkpoints,
        state=state,
        recorder=Recorder(order, state, spec.batch.sequences * spec.data.sequence_length) if team.leads else Silence(),
    )


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


def to_device(sequences: Tokens, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets, both (B, T): each target is the token after its input."""
    tokens = torch.from_numpy(sequences).to(device)
    return tokens[:, :-1], tokens[:, 1:]


def result(run: Trainer, bits_per_byte: float | None) -> PretrainResult:
    """The numbers of the run so far."""
    state, tokens = run.state, run.state.step * run.tokens_per_step
    last = None
    if state.checkpoint_step is not None and state.checkpoint_time is not None:
        last = LastCheckpoint(step=state.checkpoint_step, time=state.checkpoint_time)
    return PretrainResult(
        parameters=sum(p.numel() for p in run.module.parameters()),
        tokens_per_step=run.tokens_per_step,
        step=state.step,
        steps=run.spec.schedule.steps,
        tokens=tokens,
        loss=Loss(train=state.train_loss, eval=state.eval_loss, initial=state.initial_loss),
        perplexity=perplexity(state.eval_loss),
        initial_perplexity=perplexity(state.initial_loss),
        bits_per_byte=bits_per_byte,
        tokens_per_second=tokens / state.train_seconds if state.train_seconds else None,
        last_checkpoint=last,
        resumed_from=state.resumed_from or None,
    )
