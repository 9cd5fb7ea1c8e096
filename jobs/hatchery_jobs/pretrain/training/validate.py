"""Validation loss, computed by all workers and the same for any number of them, and samples."""

import math

import torch

from hatchery_jobs.pretrain.distributed import Watchdog, reshard
from hatchery_jobs.pretrain.training.generate import generate_samples
from hatchery_jobs.pretrain.training.trainer import Trainer


def validation_is_due(run: Trainer) -> bool:
    """Whether to validate before this step: at the start, at the end, every `evaluate.everySteps`, each step once."""
    spec, step = run.spec, run.state.step
    on_time = step % spec.evaluate.every_steps == 0 or step == spec.schedule.steps
    return on_time and spec.evaluate.batches != 0 and run.state.evaluated_step < step


@torch.no_grad()
def validate(run: Trainer, dog: Watchdog) -> float | None:
    """Loss on the validation split in nats per label; None if a pod receives SIGTERM meanwhile."""
    spec, group, rows = run.spec, run.group, run.rows
    sequences = run.objective.validation_rows
    if spec.evaluate.batches > 0:
        sequences = min(sequences, spec.evaluate.batches * spec.batch.sequences)
    micro_batches = math.ceil(sequences / rows)
    sums = torch.zeros(2, micro_batches, dtype=torch.float64, device=group.device)
    run.model.eval()
    try:
        for first in range(0, micro_batches, group.size):
            dog.beat("evaluation")
            if group.any_stop_requested():
                return None
            number = first + group.rank
            # with FSDP every forward pass is a collective
            if number < micro_batches or group.is_sharded:
                start = min(number, micro_batches - 1) * rows
                batch = run.objective.validation(start, min(rows, sequences - start))
                loss = run.objective.loss(run.validation_model, batch)
            if number < micro_batches:
                sums[0, number], sums[1, number] = loss, batch.targets
    finally:
        run.model.train()
        reshard(run.model)
    totals = group.all_reduce(sums.flatten())
    return math.fsum(totals[:micro_batches]) / max(1.0, math.fsum(totals[micro_batches:]))


def sample(run: Trainer, dog: Watchdog) -> None:
    """Generates samples for the prompts of `spec.evaluate.samples`; stops early if a pod receives SIGTERM.

    Only the lead generates; with FSDP all workers do, since every forward pass is a collective.
    """
    spec = run.spec.evaluate.samples
    if not spec.prompts or (run.lead is None and not run.group.is_sharded):
        return

    def _should_stop() -> bool:
        dog.beat("samples")
        return run.group.any_stop_requested() if run.group.is_sharded else run.group.stop_requested()

    samples = generate_samples(
        run.validation_model.model,
        run.tokenizer,
        spec.prompts,
        max_tokens=spec.max_tokens,
        temperature=spec.temperature,
        seed=run.spec.data.shuffle.seed,
        step=run.state.step,
        should_stop=_should_stop,
    )
    reshard(run.model)
    if samples is not None:
        run.recorder.sampled(run.state, samples)
