"""The next token."""

import math
from dataclasses import dataclass

import torch

from hatchery_jobs.pretrain.data.types import DataSource, Rows
from hatchery_jobs.pretrain.objectives.base import IGNORED, Batch, Fed, Scorer


@dataclass(frozen=True)
class Causal(Fed):
    """Each token is predicted from those before it."""

    feed: DataSource
    """Rows of `sequence_tokens` inputs."""
    device: torch.device
    """Where batches go."""
    sequence_tokens: int
    """Inputs of a row."""
    tokens_per_byte: float | None = None
    """Tokens for each byte of the validation split's text, where they are known."""

    @property
    def nominal_targets(self) -> int:
        """Labels of a row without padding."""
        return self.sequence_tokens

    def training(self, first: int, count: int) -> Batch:
        """The micro-batch at `count` positions of the run from `first` on."""
        return self._batch(self.feed.training(first, count))

    def validation(self, first: int, count: int) -> Batch:
        """A micro-batch of the validation split."""
        return self._batch(self.feed.validation(first, count))

    def _batch(self, rows: Rows) -> Batch:
        tokens = torch.from_numpy(rows.tokens).to(self.device)
        labels, targets = tokens[:, 1:], labels_of(rows)
        if rows.learnt is not None:
            labels = labels.masked_fill(torch.from_numpy(~rows.learnt).to(self.device), IGNORED)
        inputs = {"input_ids": tokens[:, :-1]}
        if rows.positions is not None:
            # positions that begin again are how the library knows that documents must not see each other
            inputs["position_ids"] = torch.from_numpy(rows.positions).to(self.device)
        return Batch(inputs, labels, targets)

    def loss(self, model: Scorer, batch: Batch) -> torch.Tensor:
        """Summed cross-entropy in nats."""
        loss: torch.Tensor = model(batch, use_cache=False).logits
        return loss

    def bits_per_byte(self, loss: float) -> float | None:
        """A validation loss in nats per token as bits per byte of text."""
        return None if self.tokens_per_byte is None else loss / math.log(2) * self.tokens_per_byte


def labels_of(rows: Rows) -> int:
    """Targets of rows that count."""
    return rows.tokens[:, 1:].size if rows.learnt is None else int(rows.learnt.sum())
