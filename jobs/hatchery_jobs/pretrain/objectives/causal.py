"""Next-token prediction."""

import math
from dataclasses import dataclass

import torch

from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.data import DataSource, Rows, Vocabulary
from hatchery_jobs.pretrain.objectives.base import IGNORED, Batch, Scorer, SourceObjective


@dataclass(frozen=True)
class Causal(SourceObjective):
    """Each token is predicted from those before it."""

    source: DataSource
    """Rows of `sequence_tokens` inputs."""
    device: torch.device
    """Where batches go."""
    sequence_tokens: int
    """Inputs of a row."""
    tokens_per_byte: float | None = None
    """Tokens per byte of the validation split's text, where known."""

    @property
    def nominal_targets(self) -> int:
        """Labels of a row without padding."""
        return self.sequence_tokens

    def training(self, first: int, count: int) -> Batch:
        """The micro-batch at `count` positions of the run, starting with `first`."""
        return self._batch(self.source.training(first, count))

    def validation(self, first: int, count: int) -> Batch:
        """A micro-batch of the validation split."""
        return self._batch(self.source.validation(first, count))

    def _batch(self, rows: Rows) -> Batch:
        tokens = torch.from_numpy(rows.tokens).to(self.device)
        labels, targets = tokens[:, 1:], rows.tokens[:, 1:].size
        if rows.is_target is not None:
            labels = labels.masked_fill(torch.from_numpy(~rows.is_target).to(self.device), IGNORED)
            targets = int(rows.is_target.sum())
        inputs = {"input_ids": tokens[:, :-1]}
        if rows.positions is not None:
            # transformers masks attention across documents where positions restart
            inputs["position_ids"] = torch.from_numpy(rows.positions).to(self.device)
        return Batch(inputs, labels, targets)

    def loss(self, model: Scorer, batch: Batch) -> torch.Tensor:
        """Summed cross-entropy in nats."""
        loss: torch.Tensor = model(batch, use_cache=False).logits
        return loss

    def bits_per_byte(self, loss: float) -> float | None:
        """Converts a validation loss in nats per token to bits per byte of text."""
        return None if self.tokens_per_byte is None else loss / math.log(2) * self.tokens_per_byte


def build(
    spec: PretrainRunSpec,
    _vocabulary: Vocabulary,
    source: DataSource,
    device: torch.device,
    tokens_per_byte: float | None,
) -> Causal:
    """The objective of a spec."""
    return Causal(source, device, spec.data.sequence_length, tokens_per_byte)
