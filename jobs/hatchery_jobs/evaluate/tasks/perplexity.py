"""Perplexity: every predicted token counts once, whatever the batch."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np

from hatchery_api.conditions import Reason
from hatchery_api.resources.evaluate import PerplexityTask
from hatchery_jobs.evaluate.model import Loaded, check_positions
from hatchery_jobs.evaluate.tasks.base import Measure, TaskResult
from hatchery_jobs.evaluate.tasks.token_blocks import Block, blocks
from hatchery_jobs.readers import CorpusSplit
from hatchery_jobs.runtime import DataError, SpecError

Watch = Callable[[int, int, str], None]
"""Called with done, total and unit; raises when the pod is asked to end."""

DEFINITION: Final = {
    "perplexity": "exp(loss)",
    "loss": "mean over all predicted tokens of -ln p(token | tokens before it in its block)",
    "bits_per_byte": "loss * predicted tokens / (ln 2 * bytes of UTF-8 text that the predicted tokens stand for)",
    "unit": "token",
    "log_base": "e",
    "blocks": "documents in the order of the corpus, the end token after each, cut into blocks without overlap",
    "stride": None,
    "first_token": "the first token of a block is context only",
    "last_block": "counted although it may be shorter",
    "end_token": "predicted and counted as a token of 0 bytes",
    "prefix_token": None,
    "dtype": "float32",
}
"""What the numbers mean."""


@dataclass
class Sums:
    """What all blocks add up to."""

    nats: float = 0.0
    """Cross-entropy of all predicted tokens."""
    tokens: int = 0
    """Predicted tokens."""
    text_bytes: int = 0
    """Bytes of text they stand for."""

    def measures(self) -> list[Measure]:
        """The numbers; the loss is infinite when a token had probability 0."""
        loss = self.nats / self.tokens
        bits = self.nats / math.log(2)
        return [
            Measure("perplexity", exponential(loss), self.tokens),
            Measure("loss", loss, self.tokens),
            Measure("bits_per_byte", bits / self.text_bytes if self.text_bytes else math.inf, self.tokens),
        ]


def exponential(loss: float) -> float:
    """`exp`, infinite where it overflows."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def run(task: PerplexityTask, field: str, loaded: Loaded, split: CorpusSplit, watch: Watch) -> TaskResult:
    """Measures a model on the documents of a split.

    Args:
        task: what is asked.
        field: path of the task in the spec, for messages.
        loaded: model and tokenizer.
        split: the documents.
        watch: told after each batch.

    Raises:
        SpecError: sequences are longer than the model can see.
        DataError: there is no token to predict, or the model gives no numbers.
    """
    length = sequence_length(task, field, loaded.positions)
    found = blocks(loaded.tokenizer, split.batches(), length, loaded.end_id)
    sums = Sums()
    documents = split.documents
    limit = None if task.max_batches < 0 else task.max_batches
    for batch in islice(batched(found, task.batch_sequences), limit):
        _add(sums, loaded.model, batch)
        watch(batch[-1].documents, documents, "documents")
    _check(sums, field)
    definition = DEFINITION | {"sequence_length": length, "text_bytes": sums.text_bytes}
    return TaskResult(sums.measures(), definition)


def sequence_length(task: PerplexityTask, field: str, positions: int | None) -> int:
    """Tokens in a block.

    Raises:
        SpecError: the model cannot see so many, or nothing says how many.
    """
    field = f"{field}.perplexity.sequenceLength"
    if task.sequence_length is not None:
        check_positions(field, task.sequence_length, positions)
        return task.sequence_length
    if positions is None:
        raise SpecError(Reason.INVALID_SPEC, f"{field}: the model has no longest sequence; set how many tokens to use")
    return positions


def batched(found: Iterable[Block], size: int) -> Iterator[list[Block]]:
    """Batches of blocks of equal length, so that no batch needs padding: a shorter block is one of its own."""
    batch: list[Block] = []
    for block in found:
        if batch and (len(batch) == size or len(block.ids) != len(batch[0].ids)):
            yield batch
            batch = []
        batch.append(block)
    if batch:
        yield batch


def _add(sums: Sums, model: Any, batch: list[Block]) -> None:
    losses = token_losses(model, np.stack([block.ids for block in batch]))
    sums.nats += float(losses.sum())
    sums.tokens += losses.size
    sums.text_bytes += sum(int(block.text_bytes[1:].sum()) for block in batch)


def token_losses(model: Any, ids: np.ndarray) -> np.ndarray:
    """Cross-entropy of each token but the first of each block: `(B, T)` to `(B, T - 1)`, in 64-bit floats."""
    import torch

    if ids.shape[1] == 1:
        return np.zeros((len(ids), 0))
    with torch.inference_mode():
        tokens = torch.from_numpy(ids).to(model.device)
        logits = model(tokens, use_cache=False).logits
        # A block at a time: over the whole batch this would need the memory of the logits twice more.
        losses = [
            torch.nn.functional.cross_entropy(row[:-1], targets[1:], reduction="none")
            for row, targets in zip(logits, tokens, strict=True)
        ]
        found: np.ndarray = torch.stack(losses).double().cpu().numpy()
    return found


def _check(sums: Sums, field: str) -> None:
    if not sums.tokens:
        raise DataError(
            Reason.NOT_ENOUGH_TEXT, f"{field}.perplexity: the split holds no token to predict; measure on more text"
        )
    if math.isnan(sums.nats):
        raise DataError(
            Reason.NON_FINITE_LOSS,
            f"{field}.perplexity: the model's loss is no number: its weights are broken; take an earlier checkpoint",
        )
