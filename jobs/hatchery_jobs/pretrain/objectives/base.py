"""A batch, and what an objective is to the loop."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch

from hatchery_jobs.pretrain.data.types import DataSource, PairSource

IGNORED: Final = -100
"""Label of a position that is not learnt: what torch's cross-entropy leaves out."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch on its device; shapes: B rows, T tokens."""

    inputs: dict[str, torch.Tensor]
    """Arguments of the model by name, each (B, T); those of a decoder have the length of the labels."""
    labels: torch.Tensor
    """(B, T), `IGNORED` where nothing is learnt."""
    targets: int
    """Labels that count, known without asking the device."""
    next_sentence: torch.Tensor | None = None
    """(B,): 0 where the second segment follows the first, 1 where it is from elsewhere."""


Scorer = Callable[..., Any]
"""A model as objectives see it: of a batch and options of the model, its output with the summed loss for logits."""


class Objective(Protocol):
    """Batches and losses. A batch is a pure function of its positions, its randomness included."""

    @property
    def nominal_targets(self) -> int:
        """Labels expected in one row: the fixed divisor of a loss until the true number is known."""

    @property
    def validation_rows(self) -> int:
        """Rows of the validation split."""

    def begin(self, first: int, count: int) -> None:
        """All workers say at the same point which positions the next update takes."""

    def training(self, first: int, count: int) -> Batch:
        """The micro-batch at `count` positions of the run from `first` on."""

    def validation(self, first: int, count: int) -> Batch:
        """A micro-batch of the validation split, the same each time."""

    def loss(self, model: Scorer, batch: Batch) -> torch.Tensor:
        """Summed loss in nats over the labels that count. A row's next-sentence loss is weighted with
        `nominal_targets`, so that divided by all labels it is one mean beside the other, as in BERT.
        """

    def bits_per_byte(self, loss: float) -> float | None:
        """A validation loss in nats per label as bits per byte of text; None where labels are not all the text."""

    def close(self) -> None:
        """Ends the reading."""


class Fed:
    """What every objective that reads a feed shares."""

    feed: DataSource | PairSource
    """Where rows or pairs come from."""

    @property
    def validation_rows(self) -> int:
        """Rows, or pairs, of the validation split."""
        return self.feed.validation_rows

    def begin(self, first: int, count: int) -> None:
        """All workers say at the same point which positions the next update takes."""
        self.feed.begin(first, count)

    def close(self) -> None:
        """Ends the reading."""
        self.feed.close()
