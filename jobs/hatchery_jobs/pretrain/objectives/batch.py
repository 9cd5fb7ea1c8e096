"""A batch, and what an objective is to the loop."""

from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch

from hatchery_jobs.pretrain.rows import Feed, PairFeed

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

    def loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """Summed loss in nats over the labels that count. A row's next-sentence loss is weighted with
        `nominal_targets`, so that divided by all labels it is one mean beside the other, as in BERT.
        """

    def bits_per_byte(self, loss: float) -> float | None:
        """A validation loss in nats per label as bits per byte of text; None where labels are not all the text."""


class Fed:
    """What every objective that reads a feed shares."""

    feed: Feed | PairFeed
    """Where rows or pairs come from."""

    @property
    def validation_rows(self) -> int:
        """Rows, or pairs, of the validation split."""
        return self.feed.validation_rows

    def begin(self, first: int, count: int) -> None:
        """All workers say at the same point which positions the next update takes."""
        self.feed.begin(first, count)


class _SummedCrossEntropy(torch.autograd.Function):
    """torch's own keeps logarithms of probabilities, whose gradient takes the exponential of all of them again; this
    keeps probabilities and makes the gradient in their place: half to two thirds of the time, a tensor (N, V) less.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of logits (N, V) and labels (N)."""
        counted = labels != IGNORED
        targets = labels.clamp_min(0)[:, None]
        highest = logits.amax(dim=-1, keepdim=True)
        gradient = torch.softmax(logits, dim=-1)
        # the highest probability is at least 1 / V; that of the target may be too small for a float
        losses = highest - logits.gather(1, targets) - gradient.amax(dim=-1, keepdim=True).log()
        gradient.scatter_add_(1, targets, torch.full_like(highest, -1.0))
        ctx.save_for_backward(gradient, counted)
        return losses.squeeze(1).where(counted, 0.0).sum()

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Gradient of the logits; there is one backward pass, so it takes the memory of the probabilities."""
        gradient, counted = ctx.saved_tensors
        return gradient.mul_((outer[0] * counted)[:, None]), None


def summed_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Loss in nats over the labels that count, in single precision; logits (B, T, V), labels (B, T)."""
    single = logits.flatten(0, 1).float()
    loss: torch.Tensor = _SummedCrossEntropy.apply(single, labels.flatten())
    return loss
