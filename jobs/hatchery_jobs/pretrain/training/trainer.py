"""The state of a run in one worker: model, optimizer and `RunState`, and the steps that change them."""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from types import TracebackType
from typing import Any

import torch
from transformers import AutoTokenizer

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import LastCheckpoint, Loss, PretrainResult, PretrainRunSpec
from hatchery_jobs.pretrain.checkpoint import Checkpoints, contribute_shards, restore_snapshot, take_snapshot
from hatchery_jobs.pretrain.distributed import ProcessGroup, full_tensor, no_gradient_sync
from hatchery_jobs.pretrain.launcher import WorkerSpec
from hatchery_jobs.pretrain.objectives import Objective
from hatchery_jobs.pretrain.state import RunState, Update, goodput, perplexity
from hatchery_jobs.pretrain.telemetry import Recorder, RunInfo
from hatchery_jobs.pretrain.training.fused_loss import LossModel
from hatchery_jobs.pretrain.training.guard import with_loss
from hatchery_jobs.pretrain.training.lead import LeadServices
from hatchery_jobs.runtime import RetryableError


@dataclass
class Trainer(AbstractContextManager["Trainer"]):
    """What the loop works on."""

    group: ProcessGroup
    worker: WorkerSpec
    info: RunInfo
    objective: Objective
    rows: int
    """Rows of one micro-batch."""
    model: torch.nn.Module
    """The unwrapped transformers model."""
    forward: Any
    """The model as the loop calls it: compiled, and wrapped by DDP."""
    optimizer: Any
    checkpoints: Checkpoints
    state: RunState
    recorder: Recorder
    lead: LeadServices | None
    """Set on the lead only."""
    spec: PretrainRunSpec = field(init=False)
    train_model: LossModel = field(init=False)
    """The model in training."""
    validation_model: LossModel = field(init=False)
    """The model in validation: without DDP, which passes without gradients do not need."""
    _parameters: list[torch.nn.Parameter] = field(init=False)
    _is_reserved: bool = False
    _started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Derives the rest; wall time counts from here on top of that of earlier attempts."""
        self.spec = self.worker.job.spec
        self._started -= self.state.wall_seconds
        self.train_model = LossModel.of(self.model, self.forward)
        self.validation_model = self.train_model if self.group.is_sharded else LossModel.of(self.model)
        self._parameters = list(self.model.parameters())  # walking the modules costs as much as clipping

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for the write in flight, stops reading data, then closes the record."""
        if self.lead is not None:
            self.lead.close()
        self.objective.close()
        self.recorder.__exit__(kind, error, trace)

    @cached_property
    def tokenizer(self) -> Any:
        """The transformers tokenizer, for samples."""
        return AutoTokenizer.from_pretrained(self.worker.tokenizer)

    def advance(self, **changes: Any) -> None:
        """Changes fields of the state."""
        self.state = self.state.model_copy(update=changes)

    def no_sync(self) -> AbstractContextManager[None]:
        """Accumulates gradients locally instead of reducing them."""
        if self.group.is_sharded:
            return no_gradient_sync(self.model)
        return self.group.accelerator.no_sync(self.forward)

    def clip(self, factor: float) -> float:
        """Multiplies the gradients by a factor, clips them, and returns their norm before clipping."""
        if factor != 1.0:
            torch._foreach_mul_([p.grad for p in self._parameters if p.grad is not None], factor)
        norm = self.group.accelerator.clip_grad_norm_(self._parameters, self.spec.optimizer.clip_norm)
        return float(full_tensor(norm))

    def step(self, rate: float) -> None:
        """Runs an optimizer step with a learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Accelerate's step looks up a library on disk each time; only the gradient scaler of fp16 needs it
        (self.optimizer if self.group.accelerator.scaler else self._bare_optimizer).step()

    def record_update(self, update: Update) -> None:
        """Advances the state after an optimizer step and records the update."""
        state = with_loss(self.spec.guard, self.state, update.loss)
        self.state = state.model_copy(
            update={
                "step": state.step + 1,
                "batch": state.batch + 1,
                "targets": state.targets + update.targets,
                "train_loss": update.loss,
                "train_seconds": state.train_seconds + update.times.total,
                "wall_seconds": time.monotonic() - self._started,
            }
        )
        self.recorder.updated(self.state, update)
        if self.lead is not None and not self._is_reserved:
            self._is_reserved = True  # the optimizer has its state only after the first update
            self.lead.reserve(take_snapshot(self.model, self._bare_optimizer))

    def save(self, *, wait: bool = False) -> None:
        """Saves a checkpoint of this step unless there is one; `wait` blocks the lead until it is durable.

        Raises:
            RetryableError: `wait` is set and the state could not be saved.
        """
        if self.state.checkpoint_step != self.state.step:
            now, scaler = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), self.group.accelerator.scaler
            loss_scale = scaler.state_dict() if scaler else None
            self.advance(checkpoint_step=self.state.step, checkpoint_time=now, loss_scale=loss_scale)
            snapshot = take_snapshot(self.model, self._bare_optimizer)
            if self.lead is None or not self.lead.save(self.state, snapshot):
                contribute_shards(snapshot)
        if wait and self.lead is not None:
            self.lead.wait_durable()

    def roll_back(self) -> bool:
        """Restores the newest checkpoint; returns False if there is none."""
        if self.lead is not None:
            self.lead.settle(self.state)
        newest = restore_newest(self.group, self.checkpoints, self.model, self._bare_optimizer)
        if newest is None:
            return False
        if self.lead is not None:
            self.checkpoints.discard_after(newest.step)
        kept = ("interventions", "resumed_from", "wall_seconds")
        self.state = newest.model_copy(
            update={name: getattr(self.state, name) for name in kept} | {"rollbacks": self.state.rollbacks + 1}
        )
        return True

    def finish(self) -> None:
        """Waits until the last checkpoint is durable and exports the model."""
        self.save(wait=True)
        if self.lead is not None:
            self.lead.finish(self.state.step)

    def result(self) -> PretrainResult:
        """The run's figures so far, as its resource reports them."""
        state, info = self.state, self.info
        last_checkpoint = None
        if state.checkpoint_step is not None and state.checkpoint_time is not None:
            last_checkpoint = LastCheckpoint(step=state.checkpoint_step, time=state.checkpoint_time)
        return PretrainResult(
            parameters=info.parameters,
            tokens_per_step=info.tokens_per_step,
            step=state.step,
            steps=self.spec.schedule.steps,
            tokens=state.step * info.tokens_per_step,
            loss=Loss(train=state.train_loss, eval=state.eval_loss, initial=state.initial_loss),
            perplexity=perplexity(state.eval_loss),
            initial_perplexity=perplexity(state.initial_loss),
            bits_per_byte=None if state.eval_loss is None else self.objective.bits_per_byte(state.eval_loss),
            tokens_per_second=info.tokens_per_second(state.step, state.train_seconds),
            last_checkpoint=last_checkpoint,
            resumed_from=state.resumed_from or None,
            mfu=info.mfu(state.step, state.train_seconds),
            goodput=goodput(state),
            skipped=sum(end - first for first, end in state.skipped) or None,
            rollbacks=state.rollbacks or None,
            micro_batch=None if self.rows == self.spec.batch.per_device else self.rows,
        )

    @property
    def _bare_optimizer(self) -> torch.optim.Optimizer:
        return bare_optimizer(self.optimizer)


def bare_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """The torch optimizer inside Accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)


def restore_newest(
    group: ProcessGroup, checkpoints: Checkpoints, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> RunState | None:
    """Loads the newest complete checkpoint and returns its state; None if there is none.

    The lead chooses it, so that all workers load the same one.

    Raises:
        RetryableError: this worker cannot read a checkpoint that the lead can.
    """
    newest: RunState | None = group.broadcast(checkpoints.newest() if group.is_lead else None)
    if newest is None:
        return None
    try:
        restore_snapshot(checkpoints.load(newest.step), model, optimizer)
    except FileNotFoundError as error:
        raise RetryableError(
            Reason.STORAGE_ERROR,
            f"{error.filename}: worker {group.rank} cannot read the checkpoint that worker {group.lead_rank} wrote; "
            "all pods must mount the same volume: use a ReadWriteMany claim in spec.storage, or one node",
        ) from error
    return newest
