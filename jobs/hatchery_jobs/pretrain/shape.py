"""Sizes of a model, known before torch is imported."""

from dataclasses import dataclass
from typing import Final

from hatchery_api.conditions import Reason
from hatchery_api.pretrain_model import PretrainModel
from hatchery_jobs.errors import SpecError

PRESETS: Final = {
    "tiny": (4, 4, 128),
    "small": (12, 12, 768),
    "medium": (24, 16, 1024),
    "large": (36, 20, 1280),
    "xl": (48, 25, 1600),
}
"""Layers, heads and width of each `spec.model.size`."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a GPT-2."""

    layers: int
    """Transformer blocks."""
    heads: int
    """Attention heads."""
    width: int
    """Width of the residual stream."""
    positions: int
    """Longest sequence."""
    vocab: int
    """Tokens of the vocabulary."""
    dropout: float
    """Dropout everywhere."""

    @property
    def parameters(self) -> int:
        """Trainable parameters; the output layer shares the token embedding."""
        attention, feed_forward, norms = 4 * self.width + 4, 8 * self.width + 5, 4
        block = self.width * (attention + feed_forward + norms)
        return self.width * (self.vocab + self.positions + 2) + self.layers * block


def resolve_shape(model: PretrainModel, sequence_tokens: int, vocab: int) -> Shape:
    """The preset with its overrides.

    Raises:
        SpecError: the sizes contradict each other.
    """
    layers, heads, width = PRESETS[model.size]
    own = model.overrides
    shape = Shape(
        layers=own.layers or layers,
        heads=own.heads or heads,
        width=own.hidden_size or width,
        positions=own.max_positions or sequence_tokens,
        vocab=vocab,
        dropout=own.dropout or 0.0,
    )
    if shape.width % shape.heads:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.model: {shape.heads} heads do not divide a width of {shape.width}; "
            "change overrides.heads or overrides.hiddenSize",
        )
    if sequence_tokens > shape.positions:
        raise SpecError(
            Reason.SEQUENCE_TOO_LONG,
            f"spec.data.sequenceLength is {sequence_tokens}, the model sees {shape.positions} positions; "
            "lower it or raise spec.model.overrides.maxPositions",
        )
    return shape
