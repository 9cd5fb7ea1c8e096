"""The loss on the validation split, shared by all workers and the same for any number of them; samples of texts."""

import math

import torch

from hatchery_jobs.pretrain.distributed.sharding import reshard
from hatchery_jobs.pretrain.distributed.watchdog import Watchdog
from hatchery_jobs.pretrain.training.generate import write_samples
from hatchery_jobs.pretrain.training.trainer import Trainer


def measure_is_due(run: Trainer) -> bool:
    """Before the first update, after the last, and every so many between; once for each step, also after a resume."""
    spec, step = run.spec, run.state.step
    on_time = step % spec.evaluate.every_steps == 0 or step == spec.schedule.steps
    return on_time and spec.evaluate.batches != 0 and run.state.evaluated_step < step


@torch.no_grad()
def measure(run: Trainer, dog: Watchdog) -> float | None:
    """Loss on the validation split in nats per label; None when a pod is asked to end meanwhile."""
    spec, team, rows = run.spec, run.team, run.rows
    sequences = run.objective.validation_rows
    if spec.evaluate.batches > 0:
        sequences = min(sequences, spec.evaluate.batches * spec.batch.sequences)
    micro_batches = math.ceil(sequences / rows)
    sums = torch.zeros(2, micro_batches, dtype=torch.float64, device=team.device)
    run.model.eval()
    try:
        for first in range(0, micro_batches, team.size):
            dog.beat("evaluation")
            if team.agree_to_stop():
                return None
            number = first + team.rank
            # under FSDP every worker takes part in every forward pass
            if number < micro_batches or run.is_sharded:
                start = min(number, micro_batches - 1) * rows
                batch = run.objective.validation(start, min(rows, sequences - start))
                loss = run.objective.loss(run.measured, batch)
            if number < micro_batches:
                sums[0, number], sums[1, number] = loss, batch.targets
    finally:
        run.model.train()
        reshard(run.model)
    totals = team.total(sums.flatten())
    return math.fsum(totals[:micro_batches]) / max(1.0, math.fsum(totals[micro_batches:]))


def sample(run: Trainer, dog: Watchdog) -> None:
    """Lets the model write after the prompts of the spec; cut short when a pod is asked to end.

    The lead writes; where workers hold parts of the model all do, and ask together.
    """
    wanted = run.spec.evaluate.samples
    if not wanted.prompts or not (run.team.leads or run.is_sharded):
        return

    def _asked() -> bool:
        dog.beat("samples")
        return run.team.agree_to_stop() if run.is_sharded else run.team.stop_wanted()

    texts = write_samples(
        run.measured.model,
        run.tokenizer,
        wanted.prompts,
        max_tokens=wanted.max_tokens,
        temperature=wanted.temperature,
        seed=run.spec.data.shuffle.seed,
        step=run.state.step,
        should_stop=_asked,
    )
    reshard(run.model)
    if texts is not None:
        run.recorder.sampled(run.state, texts)
