"""A run as a worker holds it: made from the newest checkpoint, saved into the next one."""

import shutil
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import torch
from transformers import AutoTokenizer

from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.checkpoint.publish import Publisher
from hatchery_jobs.pretrain.checkpoint.snapshot import apply, contribute, gather, whole
from hatchery_jobs.pretrain.checkpoint.store import WEIGHTS, Checkpoints
from hatchery_jobs.pretrain.checkpoint.writer import CheckpointWriter
from hatchery_jobs.pretrain.distributed.process_group import ProcessGroup
from hatchery_jobs.pretrain.distributed.sharding import unsynced
from hatchery_jobs.pretrain.launcher.protocol import WorkerSpec
from hatchery_jobs.pretrain.objectives.base import Objective
from hatchery_jobs.pretrain.objectives.fused_loss import LossModel
from hatchery_jobs.pretrain.record.curve import CURVE
from hatchery_jobs.pretrain.state import RunState, Update
from hatchery_jobs.pretrain.telemetry.recorder import NullRecorder, Recorder
from hatchery_jobs.pretrain.telemetry.run_info import RunInfo
from hatchery_jobs.pretrain.training import guard
from hatchery_jobs.runtime import RetryableError, storage_errors

CATCH_UP_SECONDS: Final = 120.0
"""Time at the end for checkpoints that are not on the Hub yet; the finished model is pushed after it anyway."""


@dataclass
class Trainer(AbstractContextManager["Trainer"]):
    """What the steps of the loop work on."""

    team: ProcessGroup
    order: WorkerSpec
    spec: PretrainRunSpec
    setup: RunInfo
    objective: Objective
    rows: int
    """Rows of one micro-batch."""
    model: torch.nn.Module
    """The model as transformers knows it."""
    forward: Any
    """The model as the loop calls it: within DDP, compiled."""
    optimizer: Any
    checkpoints: Checkpoints
    state: RunState
    recorder: NullRecorder
    writer: CheckpointWriter | None = None
    """Of the lead."""
    publisher: Publisher | None = None
    """Of the lead, where checkpoints are pushed."""
    _is_reserved: bool = False
    _begun: float = 0.0
    """When the newest checkpoint was begun, monotonic."""
    _problem: RetryableError | None = None
    """Why the newest state is not saved."""
    learner: LossModel = field(init=False)
    """The model as it learns."""
    measured: LossModel = field(init=False)
    """The model as it is measured: DDP around it would only count passes without gradients."""
    _parameters: list[torch.nn.Parameter] = field(init=False)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Makes the lead's writer; time counts from here on top of what earlier attempts took."""
        self.began -= self.state.wall_seconds
        self.learner = LossModel.of(self.model, self.forward)
        self.measured = self.learner if self.is_sharded else LossModel.of(self.model)
        self._parameters = list(self.model.parameters())  # walking through the modules takes as long as a clip
        if isinstance(self.recorder, Recorder):
            self.writer = CheckpointWriter(
                self.checkpoints, self._saved, self.recorder.checkpoint_failed,
                asynchronous=self.spec.checkpoint.asynchronous,
            )  # fmt: skip
            if self.publisher is not None and self.state.checkpoint_step is not None:
                # what an earlier pod did not get to push
                self.publisher.offer(self.state, self.checkpoints.path(self.state.checkpoint_step))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the reading, and the record of the run after what is being written."""
        if self.writer is not None:
            self.writer.close()
        self.objective.close()
        self.recorder.__exit__(kind, error, trace)

    @property
    def is_sharded(self) -> bool:
        """Whether every forward pass is one of all workers together."""
        return self.team.is_sharded

    @cached_property
    def tokenizer(self) -> Any:
        """Of transformers, for samples."""
        return AutoTokenizer.from_pretrained(self.order.tokenizer)

    def advance(self, **changes: Any) -> None:
        """Changes the state."""
        self.state = self.state.model_copy(update=changes)

    def no_sync(self) -> AbstractContextManager[None]:
        """Keeps gradients to this worker for now."""
        if self.is_sharded:
            return unsynced(self.model)
        return self.team.accelerator.no_sync(self.forward)

    def clip(self, factor: float) -> float:
        """Multiplies the gradients by a factor, clips them, and returns their norm before clipping."""
        if factor != 1.0:
            torch._foreach_mul_([p.grad for p in self._parameters if p.grad is not None], factor)
        norm = self.team.accelerator.clip_grad_norm_(self._parameters, self.spec.optimizer.clip_norm)
        return float(whole(norm))

    def step(self, rate: float) -> None:
        """Lets the optimizer take the gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Accelerate's own step looks for a library on disk each time; only a scaler of gradients needs it
        (self.optimizer if self.team.accelerator.scaler else self._bare_optimizer).step()

    def took(self, update: Update) -> None:
        """Counts an update that was taken."""
        state = guard.taken(self.spec.guard, self.state, update.loss)
        self.state = state.model_copy(
            update={
                "step": state.step + 1,
                "batch": state.batch + 1,
                "targets": state.targets + update.targets,
                "train_loss": update.loss,
                "train_seconds": state.train_seconds + update.times.total,
                "wall_seconds": time.monotonic() - self.began,
            }
        )
        self.recorder.updated(self.state, update)
        if self.writer is not None and not self._is_reserved:
            self._is_reserved = True  # only now the optimizer has its state
            self.writer.reserve(gather(self.model, self._bare_optimizer))

    def save(self, *, wait: bool = False) -> None:
        """Saves this step unless it is saved; `wait` returns only when it is durable.

        Raises:
            RetryableError: the state could not be saved and is waited for.
        """
        if self.state.checkpoint_step != self.state.step:
            self._save()
        if wait and self.writer is not None:
            if self._problem is not None:
                raise self._problem
            self.writer.finish()

    def _save(self) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.advance(checkpoint_step=self.state.step, checkpoint_time=now)
        snapshot = gather(self.model, self._bare_optimizer)
        if self.writer is None or not self._sync_curve():
            contribute(snapshot)
            return
        self._begun = time.monotonic()
        self.writer.save(self.state, snapshot)

    def _sync_curve(self) -> bool:
        """Makes the curve durable as far as the checkpoint will say; whether the disk had room for it."""
        assert isinstance(self.recorder, Recorder)  # noqa: S101 - only the lead saves
        scaler = self.team.accelerator.scaler
        try:
            with storage_errors(str(self.order.folder / CURVE)):
                curve_bytes = self.recorder.curve_bytes()
        except RetryableError as error:
            self._problem = error
            self.recorder.checkpoint_failed(self.state, error)
            return False
        self._problem = None
        self.advance(curve_bytes=curve_bytes, loss_scale=scaler.state_dict() if scaler else None)
        return True

    def _saved(self, state: RunState, folder: Path) -> None:
        self.recorder.saved(state, time.monotonic() - self._begun)
        if self.publisher is not None:
            self.publisher.offer(state, folder)

    @property
    def _bare_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer without Accelerate around it."""
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def roll_back(self) -> bool:
        """Goes back to the newest checkpoint; false when there is none."""
        if self.writer is not None:
            self._settle()
        newest = self.team.told_by_lead(self.checkpoints.newest() if self.team.leads else None)
        if newest is None:
            return False
        if self.team.leads:
            self.checkpoints.discard_after(newest.step)
        apply(self.checkpoints.load(newest.step), self.model, self._bare_optimizer)
        kept = ("interventions", "resumed_from", "wall_seconds")
        self.state = newest.model_copy(
            update={name: getattr(self.state, name) for name in kept} | {"rollbacks": self.state.rollbacks + 1}
        )
        return True

    def _settle(self) -> None:
        """Waits for what is being written; a store that failed just now is not asked again here."""
        assert self.writer is not None  # noqa: S101 - the caller's condition
        try:
            self.writer.finish()
        except RetryableError as error:
            self.recorder.checkpoint_failed(self.state, error)

    def finish(self) -> None:
        """Waits until all is saved, writes the model, and gives the Hub some time."""
        self.save(wait=True)
        if self.team.leads:
            # the weights are those of the last checkpoint, whole also where workers hold parts
            self.model.config.save_pretrained(self.order.folder)
            shutil.copyfile(self.checkpoints.path(self.state.step) / WEIGHTS, self.order.folder / WEIGHTS)
        if self.publisher is not None:
            self.publisher.finish(CATCH_UP_SECONDS)
