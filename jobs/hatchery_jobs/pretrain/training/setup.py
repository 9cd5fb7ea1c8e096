"""Sets up a worker's run: joins the process group, builds the model, restores the newest checkpoint."""

import os
import shutil
from dataclasses import dataclass
from typing import Any, Final

import torch

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.checkpoint import Checkpoints
from hatchery_jobs.pretrain.data import TokenStore, Vocabulary, load_vocabulary, open_loader
from hatchery_jobs.pretrain.distributed import ProcessGroup, init_distributed, shard
from hatchery_jobs.pretrain.launcher import Flag, WorkerSpec, memory_limit
from hatchery_jobs.pretrain.model import ModelConfig, model_config
from hatchery_jobs.pretrain.objectives import build_objective, objective_info, row_tokens
from hatchery_jobs.pretrain.preflight import ADAM_BYTES, GB
from hatchery_jobs.pretrain.record import TIMELINE, read_timeline, worker_seconds
from hatchery_jobs.pretrain.state import RunState
from hatchery_jobs.pretrain.telemetry import LeadRecorder, NullRecorder, Recorder, RunInfo, open_log, this_device
from hatchery_jobs.pretrain.training.lead import LeadServices
from hatchery_jobs.pretrain.training.model_factory import build_model
from hatchery_jobs.pretrain.training.optimizer import build_optimizer
from hatchery_jobs.pretrain.training.trainer import Trainer, bare_optimizer, restore_newest
from hatchery_jobs.runtime import RECORD, SpecError, log

COMPILERS: Final = ("cc", "gcc", "clang")
"""C compilers; torch.compile needs one of them."""


@dataclass(frozen=True)
class BuiltModel:
    """A model with its optimizer, as the trainer holds them."""

    config: ModelConfig
    model: Any
    """The unwrapped transformers model."""
    forward: Any
    """The model as the loop calls it: compiled, and wrapped by DDP."""
    optimizer: Any
    """The optimizer, wrapped by Accelerate."""


def set_up(worker: WorkerSpec) -> Trainer:
    """Everything that the loop needs, at the newest checkpoint. Every worker calls it, since it holds collectives."""
    group = init_distributed(worker)
    open_log(worker, group.rank, is_lead=group.is_lead)
    worker.flag(Flag.STARTED).touch()
    if group.device.type == "cpu":
        worker.flag(Flag.ON_CPU).touch()
        if group.is_lead:
            worker.halve_after_oom_kill()
    vocabulary = load_vocabulary(worker.tokenizer)
    built = build(worker, group, vocabulary)
    checkpoints = Checkpoints(worker.checkpoints, worker.job.spec.checkpoint.keep_last)
    state = restore(worker, group, checkpoints, built)
    info = run_info(worker.job.spec, group, built.config)
    recorder, lead = attach_telemetry(worker, group, built.model, checkpoints, state=state, info=info)
    store = TokenStore(worker.tokens, row_tokens(worker.job.spec))
    source = open_loader(
        worker.job,
        store,
        vocabulary,
        broadcast=group.broadcast,
        scratch=worker.local_folder,
        milestones=worker.streams if group.is_lead else None,
    )
    log("training", rank=group.rank, workers=group.size, device=info.device.name, step=state.step)
    return Trainer(
        group=group,
        worker=worker,
        info=info,
        objective=build_objective(worker.job.spec, vocabulary, source, group.device, store.tokens_per_byte),
        rows=group.broadcast(worker.micro_batch()),
        model=built.model,
        forward=built.forward,
        optimizer=built.optimizer,
        checkpoints=checkpoints,
        state=state,
        recorder=recorder,
        lead=lead,
    )


def build(worker: WorkerSpec, group: ProcessGroup, vocabulary: Vocabulary) -> BuiltModel:
    """Builds model and optimizer: sharded, compiled and wrapped as the spec asks.

    Raises:
        SpecError: the model does not fit into memory.
    """
    spec = worker.job.spec
    config = model_config(spec, vocabulary, worker.weights)
    check_memory(config.parameters, group.size if group.is_sharded else 1, group.device)
    model = build_model(
        config,
        vocabulary.special,
        spec.model.init_seed,
        attention=spec.attention,
        gradient_checkpointing=spec.gradient_checkpointing,
        weights=worker.weights,
    ).to(group.device)
    model.config.architectures = [type(model).__name__]  # sharding renames the class
    if group.is_sharded:
        shard(model, group.device, group.size, spec.precision)
    optimizer = build_optimizer(model, spec.optimizer, spec.schedule.peak_lr)
    compiled = _compiled(spec, group, model)
    if group.is_sharded:
        return BuiltModel(config, model, compiled, group.accelerator.prepare(optimizer))
    return BuiltModel(config, model, *group.accelerator.prepare(compiled, optimizer))


def _compiled(spec: PretrainRunSpec, group: ProcessGroup, model: Any) -> Any:
    """The model, compiled where it pays: on GPUs with static shapes. On CPUs it costs more than it gains."""
    has_static_shapes = not (objective_info(spec).reads_pairs(spec) and spec.data.dynamic_padding)
    has_compiler = any(shutil.which(program) for program in COMPILERS)
    pays = group.device.type == "cuda" and has_static_shapes
    wanted = spec.compile == "always" or (spec.compile == "auto" and pays)
    log("compile", rank=group.rank, wanted=spec.compile, active=wanted and has_compiler, compiler=has_compiler)
    if not (wanted and has_compiler):
        return model
    model.get_output_embeddings().stay_uncompiled()
    return torch.compile(model)


def restore(worker: WorkerSpec, group: ProcessGroup, checkpoints: Checkpoints, built: BuiltModel) -> RunState:
    """Loads the newest checkpoint into model, optimizer and gradient scaler, and returns its state, or a fresh one."""
    newest = restore_newest(group, checkpoints, built.model, bare_optimizer(built.optimizer))
    state = newest or RunState()
    if newest is not None:
        state = newest.model_copy(update={"resumed_from": [*newest.resumed_from, newest.step]})
    if state.loss_scale and group.accelerator.scaler:
        group.accelerator.scaler.load_state_dict(state.loss_scale)
    if group.is_lead:  # a checkpoint does not count the time after it that a killed pod lost
        seconds = worker_seconds(read_timeline(worker.folder / RECORD / TIMELINE))
        state = state.model_copy(update={"wall_seconds": max(state.wall_seconds, seconds)})
    return state


def run_info(spec: PretrainRunSpec, group: ProcessGroup, config: ModelConfig) -> RunInfo:
    """What the run trains and on what."""
    return RunInfo(
        parameters=config.parameters,
        tokens_per_step=spec.batch.sequences * spec.data.sequence_length,
        flops_per_token=config.flops_per_token(spec.data.sequence_length, objective_info(spec).target_tokens(spec)),
        workers=group.size,
        device=this_device(group.device, spec.precision),
    )


def attach_telemetry(
    worker: WorkerSpec, group: ProcessGroup, model: Any, checkpoints: Checkpoints, *, state: RunState, info: RunInfo
) -> tuple[Recorder, LeadServices | None]:
    """The recorder of this worker; on the lead also checkpoint writer and publisher."""
    if not group.is_lead:
        return NullRecorder(), None
    recorder = LeadRecorder(worker, state, info)
    return recorder, LeadServices(worker, model, checkpoints, state, recorder)


def check_memory(parameters: int, holders: int, device: torch.device) -> None:
    """Rejects a model whose weights, gradients and moments alone exceed a worker's memory, before it is built.

    Args:
        parameters: Of the whole model.
        holders: Workers among which the model is sharded; 1: each worker holds all of it.
        device: This worker's device.

    Raises:
        SpecError: they do not fit, whatever the batch size.
    """
    needed = ADAM_BYTES * parameters // holders
    if device.type == "cuda":
        available: int | None = torch.cuda.mem_get_info(device)[1]
        owner = "the GPU has"
        remedy = "shard the model with spec.parallelism.strategy fsdp over more workers, or use a larger GPU"
    else:
        limit = memory_limit()
        available = None if limit is None else limit // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        owner = "its share of the pod's limit is"
        remedy = "raise spec.placement.resources.limits.memory"
    if available is not None and needed > available:
        raise SpecError(
            Reason.OUT_OF_MEMORY,
            f"weights, gradients and moments of {parameters:,} parameters take {needed / GB:.2f} GB in each worker, "
            f"and {owner} {available / GB:.2f} GB; {remedy}, or use a smaller spec.model",
        )
