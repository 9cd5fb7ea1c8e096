"""The loss on the validation split, shared by all workers and the same for any number of them."""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows

from hatchery_jobs.pretrain.data import TokenStore
from hatchery_jobs.pretrain.trainer import Trainer, to_device


def measure_is_due(run: Trainer) -> bool:
    """Before the first update, after the last, and every so many between; once for each step, also after a resume."""
    spec, step = run.spec, run.state.step
    on_time = step % spec.evaluate.every_steps == 0 or step == spec.schedule.steps
    return on_time and spec.evaluate.batches != 0 and run.state.evaluated_step < step


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


def bits_per_byte(loss: float, store: TokenStore) -> float:
    """A loss in nats per token as bits per byte of validation text."""
    split = store.index.splits["validation"]
    return loss / math.log(2) * split.tokens / split.text_bytes
