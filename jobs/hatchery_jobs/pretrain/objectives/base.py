"""The interface between objectives and the training loop. Free of torch at import, so that the registry is too."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from hatchery_jobs.pretrain.data import DataSource, PairSource

if TYPE_CHECKING:
    import torch

IGNORED: Final = -100
"""Label of a position without a target: the one that torch's cross-entropy ignores."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch on its device; shapes: B rows, T tokens."""

    inputs: "dict[str, torch.Tensor]"
    """Arguments of the model by name, each (B, T); those of a decoder have the length of the labels."""
    labels: "torch.Tensor"
    """(B, T), `IGNORED` where there is no target."""
    targets: int
    """Labels that count, known without a device synchronisation."""
    next_sentence: "torch.Tensor | None" = None
    """(B,): 0 where the second segment follows the first, 1 where it comes from elsewhere."""


Scorer = Callable[..., Any]
"""A model that takes a batch and model options; the `logits` of its output are the summed loss."""


class Objective(Protocol):
    """Batches and losses. A batch is a pure function of its positions, its randomness included."""

    @property
    def nominal_targets(self) -> int:
        """Labels expected per row: the fixed divisor of a loss until the true number is known."""

    @property
    def validation_rows(self) -> int:
        """Rows of the validation split."""

    def begin(self, first: int, count: int) -> None:
        """Announces the positions of the next update; a collective call of all workers."""

    def training(self, first: int, count: int) -> Batch:
        """The micro-batch at `count` positions of the run, starting with `first`."""

    def validation(self, first: int, count: int) -> Batch:
        """A micro-batch of the validation split, the same every time."""

    def loss(self, model: Scorer, batch: Batch) -> "torch.Tensor":
        """Summed loss in nats over the labels that count. A row's next-sentence loss is weighted by `nominal_targets`,
        so that dividing by the number of labels gives the sum of both means, as in BERT.
        """

    def bits_per_byte(self, loss: float) -> float | None:
        """Converts a validation loss in nats per label to bits per byte; None if labels do not cover the text."""

    def close(self) -> None:
        """Closes the source."""


class SourceObjective:
    """Base of objectives that read a data source."""

    source: DataSource | PairSource
    """Rows or pairs."""

    @property
    def validation_rows(self) -> int:
        """Rows or pairs of the validation split."""
        return self.source.validation_rows

    def begin(self, first: int, count: int) -> None:
        """Announces the positions of the next update; a collective call of all workers."""
        self.source.begin(first, count)

    def close(self) -> None:
        """Closes the source."""
        self.source.close()
