"""Perplexity over all predicted tokens, independent of the batch size."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np

from hatchery_api.conditions import Reason
from hatchery_api.resources.evaluate import PerplexityTask
from hatchery_jobs.evaluate.model import check_context_length
from hatchery_jobs.evaluate.tasks.base import Measure, TaskContext, TaskResult
from hatchery_jobs.evaluate.tasks.token_blocks import Block, blocks
from hatchery_jobs.runtime import DataError, SpecError

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
"""Definitions of the numbers, for results.json and the card."""


@dataclass
class Sums:
    """Sums over all blocks."""

    nats: float = 0.0
    """Cross-entropy of all predicted tokens."""
    tokens: int = 0
    """Predicted tokens."""
    text_bytes: int = 0
    """Bytes of text they cover."""

    def measures(self) -> list[Measure]:
        """The measures; the loss is infinite when a token had probability 0."""
        loss = self.nats / self.tokens
        bits = self.nats / math.log(2)
        return [
            Measure("perplexity", exponential(loss), self.tokens),
            Measure("loss", loss, self.tokens),
            Measure("bits_per_byte", bits / self.text_bytes if self.text_bytes else math.inf, self.tokens),
        ]


def exponential(loss: float) -> float:
    """`exp`, infinite on overflow."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def run(task: PerplexityTask, context: TaskContext) -> TaskResult:
    """Measures the model on the documents of a split.

    Raises:
        SpecError: sequences exceed the model's context length.
        DataError: the split has no token to predict, or the loss is NaN.
    """
    loaded = context.loaded
    length = sequence_length(task, context.field, loaded.positions)
    split = context.open_corpus(task.corpus_ref.split)
    documents = split.documents
    sequences = blocks(loaded.tokenizer, split.batches(), length, loaded.end_id)
    sums = Sums()
    limit = None if task.max_batches < 0 else task.max_batches
    for batch in islice(equal_length_batches(sequences, task.batch_sequences), limit):
        _add(sums, loaded.model, batch)
        context.progress(batch[-1].documents, documents, "documents")
    _check(sums, context.field)
    definition = DEFINITION | {"sequence_length": length, "text_bytes": sums.text_bytes}
    return TaskResult(sums.measures(), definition)


def sequence_length(task: PerplexityTask, field: str, positions: int | None) -> int:
    """Tokens in a block: the task's setting, else the model's context length.

    Raises:
        SpecError: the setting exceeds the context length, or neither is known.
    """
    field = f"{field}.sequenceLength"
    if task.sequence_length is not None:
        check_context_length(field, task.sequence_length, positions)
        return task.sequence_length
    if positions is None:
        raise SpecError(Reason.INVALID_SPEC, f"{field}: the model has no context length; set the tokens in a sequence")
    return positions


def equal_length_batches(sequences: Iterable[Block], size: int) -> Iterator[list[Block]]:
    """Batches of blocks of equal length, which need no padding; a shorter block makes its own batch."""
    batch: list[Block] = []
    for block in sequences:
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
        # one block at a time: over the whole batch this would take two more copies of the logits
        losses = [
            torch.nn.functional.cross_entropy(row[:-1], targets[1:], reduction="none")
            for row, targets in zip(logits, tokens, strict=True)
        ]
        stacked: np.ndarray = torch.stack(losses).double().cpu().numpy()
    return stacked


def _check(sums: Sums, field: str) -> None:
    if not sums.tokens:
        raise DataError(Reason.NOT_ENOUGH_TEXT, f"{field}: the split has no token to predict; measure on more text")
    if math.isnan(sums.nats):
        raise DataError(
            Reason.NON_FINITE_LOSS,
            f"{field}: the loss is NaN because the weights are broken; use an earlier checkpoint",
        )
