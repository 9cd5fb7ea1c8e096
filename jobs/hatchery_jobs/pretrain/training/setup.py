"""Makes the run that a worker trains: model, optimizer and data, at the newest checkpoint."""

import shutil
from pathlib import Path
from typing import Any

import torch

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.checkpoint.publish import Publisher, is_wanted
from hatchery_jobs.pretrain.checkpoint.snapshot import apply
from hatchery_jobs.pretrain.checkpoint.store import Checkpoints
from hatchery_jobs.pretrain.data.loader import open_feed
from hatchery_jobs.pretrain.data.row_lengths import learns_pairs, target_tokens
from hatchery_jobs.pretrain.data.vocabulary import Vocabulary, copy_tokenizer, load_vocabulary
from hatchery_jobs.pretrain.distributed.process_group import ProcessGroup, init_distributed
from hatchery_jobs.pretrain.distributed.sharding import shard
from hatchery_jobs.pretrain.launcher.protocol import CHECKPOINTS, OUTBOX, Flag, WorkerSpec
from hatchery_jobs.pretrain.model.config import ModelConfig
from hatchery_jobs.pretrain.model.weights import model_shape
from hatchery_jobs.pretrain.objectives.registry import build_objective
from hatchery_jobs.pretrain.record.event_log import TIMELINE, existed_seconds, read_timeline
from hatchery_jobs.pretrain.state import RunState
from hatchery_jobs.pretrain.telemetry.hardware import this_device
from hatchery_jobs.pretrain.telemetry.recorder import NullRecorder, Recorder, keep_log
from hatchery_jobs.pretrain.telemetry.run_info import RunInfo
from hatchery_jobs.pretrain.training.memory import check_memory
from hatchery_jobs.pretrain.training.model_factory import build_model
from hatchery_jobs.pretrain.training.optimizer import build_optimizer
from hatchery_jobs.pretrain.training.trainer import Trainer
from hatchery_jobs.runtime import RECORD, RetryableError, log

COMPILERS = ("cc", "gcc", "clang")
"""Programs one of which torch.compile calls."""


def prepare(order: WorkerSpec) -> Trainer:
    """Model, optimizer and data, at the newest checkpoint."""
    spec = order.job.spec
    team = init_distributed(order)
    keep_log(order, team.rank, leads=team.leads)
    order.sign(Flag.STARTED).touch()
    if team.device.type == "cpu":
        order.sign(Flag.ON_CPU).touch()
        if team.leads:
            order.halve_after_a_kill()
    vocabulary = load_vocabulary(order.tokenizer)
    shape = model_shape(spec, vocabulary, order.weights)
    check_memory(shape.parameters, team.size if team.is_sharded else 1, team.device)
    model, forward, optimizer = _model(spec, team, shape, vocabulary, order.weights)
    checkpoints = Checkpoints(order.folder / CHECKPOINTS, spec.checkpoint.keep_last)
    state = resume(team, checkpoints, model, getattr(optimizer, "optimizer", optimizer))
    if state.loss_scale and team.accelerator.scaler:
        team.accelerator.scaler.load_state_dict(state.loss_scale)
    if team.leads:  # a checkpoint does not know of the time after it that was lost with a killed pod
        existed = existed_seconds(read_timeline(order.folder / RECORD / TIMELINE))
        state = state.model_copy(update={"wall_seconds": max(state.wall_seconds, existed)})
    setup = _setup(spec, team, shape)
    recorder = Recorder(order, state, setup) if team.leads else NullRecorder()
    feed, tokens_per_byte = open_feed(order, vocabulary, team)
    log("training", rank=team.rank, workers=team.size, device=setup.device.name, step=state.step)
    return Trainer(
        team=team,
        order=order,
        spec=spec,
        setup=setup,
        objective=build_objective(spec, vocabulary, feed, team.device, tokens_per_byte),
        rows=team.told_by_lead(order.micro_batch()),
        model=model,
        forward=forward,
        optimizer=optimizer,
        checkpoints=checkpoints,
        state=state,
        recorder=recorder,
        publisher=_publisher(order, model, recorder) if team.leads and is_wanted(spec) else None,
    )


def _model(
    spec: PretrainRunSpec, team: ProcessGroup, shape: ModelConfig, vocabulary: Vocabulary, weights: Path | None
) -> tuple[Any, Any, Any]:
    """The model, the model as the loop calls it, and the optimizer."""
    model = build_model(
        shape,
        vocabulary.special,
        spec.model.init_seed,
        attention=spec.attention,
        gradient_checkpointing=spec.gradient_checkpointing,
        weights=weights,
    ).to(team.device)
    model.config.architectures = [type(model).__name__]  # sharding gives the class another name
    if team.is_sharded:
        shard(model, team.device, team.size, spec.precision)
    optimizer = build_optimizer(model, spec.optimizer, spec.schedule.peak_lr)
    compiled = _compiled(spec, team, model)
    if team.is_sharded:
        return model, compiled, team.accelerator.prepare(optimizer)
    forward, prepared = team.accelerator.prepare(compiled, optimizer)
    return model, forward, prepared


def _compiled(spec: PretrainRunSpec, team: ProcessGroup, model: Any) -> Any:
    """The model, compiled where it pays: on GPUs whose shapes never change; on CPUs it costs more than it brings."""
    pads = learns_pairs(spec) and spec.data.dynamic_padding
    has_compiler = any(shutil.which(program) for program in COMPILERS)
    wanted = spec.compile == "always" or (spec.compile == "auto" and team.device.type == "cuda" and not pads)
    log("compile", rank=team.rank, wanted=spec.compile, active=wanted and has_compiler, compiler=has_compiler)
    if not (wanted and has_compiler):
        return model
    model.get_output_embeddings().stay_uncompiled()
    return torch.compile(model)


def _setup(spec: PretrainRunSpec, team: ProcessGroup, shape: ModelConfig) -> RunInfo:
    return RunInfo(
        parameters=shape.parameters,
        tokens_per_step=spec.batch.sequences * spec.data.sequence_length,
        flops_per_token=shape.flops_per_token(spec.data.sequence_length, target_tokens(spec)),
        workers=team.size,
        device=this_device(team.device, spec.precision),
    )


def _publisher(order: WorkerSpec, model: Any, recorder: NullRecorder) -> Publisher:
    """The way of checkpoints to the Hub; what makes a model of their weights is written first."""
    files = order.signs / "model"
    model.config.save_pretrained(files)
    copy_tokenizer(order.tokenizer, files)
    return Publisher(order.job, files, order.folder / OUTBOX, told=recorder.pushed)


def resume(
    team: ProcessGroup, checkpoints: Checkpoints, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> RunState:
    """Loads the newest complete checkpoint; the lead chooses, so that all take the same one.

    Raises:
        RetryableError: this worker cannot read what the lead can.
    """
    newest: RunState | None = team.told_by_lead(checkpoints.newest() if team.leads else None)
    if newest is None:
        return RunState()
    try:
        apply(checkpoints.load(newest.step), model, optimizer)
    except FileNotFoundError as error:
        raise RetryableError(
            Reason.STORAGE_ERROR,
            f"{error.filename}: worker {team.rank} cannot read the checkpoint that worker {team.lead_rank} wrote; "
            "all pods must mount the same volume: use a ReadWriteMany claim in spec.storage, or one node",
        ) from error
    return newest.model_copy(update={"resumed_from": [*newest.resumed_from, newest.step]})
