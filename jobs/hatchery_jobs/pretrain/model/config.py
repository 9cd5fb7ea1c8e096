"""Sizes of a model, known before torch is imported: presets of the five families, and what follows from them."""

from dataclasses import dataclass
from typing import Final

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import Architecture, ModelOverrides, PretrainRunSpec
from hatchery_jobs.pretrain.data.vocabulary import Vocabulary
from hatchery_jobs.runtime import SpecError

RELATIVE_POSITIONS: Final = 32
"""Buckets of distances that each half of a T5 has a bias for."""


@dataclass(frozen=True)
class Sizes:
    """What a preset decides."""

    layers: int
    """Transformer blocks; in an encoder-decoder of each half."""
    heads: int
    """Attention heads."""
    width: int
    """Width of the residual stream."""
    feed_forward: int
    """Width of the feed-forward layers."""
    key_value_heads: int | None = None
    """Heads of keys and values; None: as many as heads."""
    head_width: int | None = None
    """Width of one head; None: width divided by heads."""


_ENCODERS: Final = {
    "tiny": Sizes(2, 2, 128, 512),  # BERT-tiny
    "small": Sizes(12, 12, 768, 3072),  # BERT-base, RoBERTa-base
    "medium": Sizes(24, 16, 1024, 4096),  # BERT-large, RoBERTa-large
    "large": Sizes(24, 24, 1536, 6144),  # as DeBERTa-v2-xlarge
    "xl": Sizes(24, 32, 2048, 8192),  # as Megatron-BERT 1.3B
}

PRESETS: Final[dict[Architecture, dict[str, Sizes]]] = {
    "gpt2": {
        "tiny": Sizes(4, 4, 128, 512),
        "small": Sizes(12, 12, 768, 3072),
        "medium": Sizes(24, 16, 1024, 4096),
        "large": Sizes(36, 20, 1280, 5120),
        "xl": Sizes(48, 25, 1600, 6400),
    },
    "llama": {
        "tiny": Sizes(4, 4, 128, 384, key_value_heads=2),
        "small": Sizes(30, 9, 576, 1536, key_value_heads=3),  # SmolLM-135M
        "medium": Sizes(32, 15, 960, 2560, key_value_heads=5),  # SmolLM-360M
        "large": Sizes(16, 32, 2048, 8192, key_value_heads=8),  # Llama-3.2-1B
        "xl": Sizes(28, 24, 3072, 8192, key_value_heads=8),  # Llama-3.2-3B
    },
    "bert": _ENCODERS,
    "roberta": _ENCODERS,
    "t5": {
        "tiny": Sizes(4, 4, 256, 1024, head_width=64),  # T5-efficient-tiny
        "small": Sizes(8, 6, 512, 1024, head_width=64),  # T5 v1.1 small
        "medium": Sizes(12, 12, 768, 2048, head_width=64),  # T5 v1.1 base
        "large": Sizes(24, 16, 1024, 2816, head_width=64),  # T5 v1.1 large
        "xl": Sizes(24, 32, 2048, 5120, head_width=64),  # T5 v1.1 xl
    },
}
"""Sizes of each `spec.model.size`, published ones where there are."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of a model."""

    architecture: Architecture
    """Family."""
    layers: int
    """Transformer blocks; in an encoder-decoder of each half."""
    heads: int
    """Attention heads."""
    key_value_heads: int
    """Heads of keys and values."""
    head_width: int
    """Width of one head."""
    width: int
    """Width of the residual stream."""
    feed_forward: int
    """Width of the feed-forward layers."""
    positions: int
    """Longest sequence."""
    vocab: int
    """Tokens of the vocabulary."""
    dropout: float
    """Dropout of embeddings, attention and residuals; llama has that of attention alone."""
    skipped_positions: int = 0
    """Rows of the position table before the first position; RoBERTa counts from one after the padding id."""
    next_sentence: bool = False
    """Whether a head tells if two segments follow each other."""
    tied: bool = True
    """Whether the output layer shares the token embedding."""
    gated: bool = True
    """Whether the feed-forward layers of a T5 are gated, as from version 1.1 on."""

    @property
    def parameters(self) -> int:
        """Trainable parameters."""
        positions = self.width * (self.positions + self.skipped_positions)
        tokens = self.width * self.vocab
        untied = 0 if self.tied else tokens
        blocks, around = self.layers * self._block, self._around
        if self.architecture in ("llama", "t5"):
            return tokens + untied + blocks + around
        return tokens + untied + positions + blocks + around

    @property
    def _attention(self) -> int:
        """Weights of one attention: queries and output, keys and values."""
        return 2 * self.width * self.head_width * (self.heads + self.key_value_heads)

    @property
    def _feed_forward(self) -> int:
        """Weights of one feed-forward layer."""
        matrices = 3 if self.architecture == "llama" or (self.architecture == "t5" and self.gated) else 2
        return matrices * self.width * self.feed_forward

    @property
    def _block(self) -> int:
        """Parameters of one block; of a T5: of one encoder and one decoder block."""
        if self.architecture == "t5":
            return 3 * self._attention + 2 * self._feed_forward + 5 * self.width
        if self.architecture == "llama":
            return self._attention + self._feed_forward + 2 * self.width
        biases_and_norms = 4 * self.width + self.feed_forward + self.width + 4 * self.width
        return self._attention + self._feed_forward + biases_and_norms

    @property
    def _around(self) -> int:
        """Parameters beside blocks, tokens and positions."""
        width = self.width
        match self.architecture:
            case "gpt2":
                return 2 * width
            case "llama":
                return width
            case "t5":
                return 2 * (RELATIVE_POSITIONS * self.heads + width)
            case _:
                segments = 1 if self.architecture == "roberta" else 2
                head = width * width + width + 2 * width + self.vocab
                pooler = width * width + width + 2 * width + 2 if self.next_sentence else 0
                return segments * width + 2 * width + head + pooler

    def flops_per_token(self, sequence_tokens: int, target_tokens: int = 0) -> float:
        """Floating-point operations of one training step for each input token (PaLM, appendix B).

        Forward and backward pass take 6 for each weight a token is multiplied with, the output layer included and
        tables that are only looked up in left out, and 12 for each number of a query and token it is compared with.
        A causal mask is not counted as a saving. A T5 has also `target_tokens` for each `sequence_tokens`.
        """
        row = self.heads * self.head_width
        if self.architecture != "t5":
            weights = self.layers * (self._attention + self._feed_forward) + self.width * self.vocab
            if self.architecture in ("bert", "roberta"):
                weights += self.width * self.width  # the layer before the output layer
            return 6.0 * weights + 12.0 * self.layers * row * sequence_tokens
        keys_of_the_encoder = self._attention // 2  # made of input tokens, though a part of the decoder
        read = self.layers * (self._attention + self._feed_forward + keys_of_the_encoder)
        written = self.layers * (2 * self._attention + self._feed_forward - keys_of_the_encoder)
        of_input = 6.0 * read + 12.0 * self.layers * row * sequence_tokens
        compared = target_tokens + sequence_tokens
        of_target = 6.0 * (written + self.width * self.vocab) + 12.0 * self.layers * row * compared
        return of_input + of_target * target_tokens / sequence_tokens


def resolve_shape(spec: PretrainRunSpec, vocabulary: Vocabulary) -> ModelConfig:
    """The preset with its overrides.

    Raises:
        SpecError: the sizes contradict each other or the family.
        DataError: the tokenizer lacks a special token the family needs.
    """
    model, sequence_tokens = spec.model, spec.data.sequence_length
    sizes, own = PRESETS[model.architecture][model.size], model.overrides
    heads, width = own.heads or sizes.heads, own.hidden_size or sizes.width
    shape = ModelConfig(
        architecture=model.architecture,
        layers=own.layers or sizes.layers,
        heads=heads,
        key_value_heads=_key_value_heads(spec, sizes, heads),
        head_width=_head_width(sizes, heads, width),
        width=width,
        feed_forward=own.feed_forward_size or sizes.feed_forward * width // sizes.width,
        positions=own.max_positions or sequence_tokens,
        vocab=vocabulary.size,
        dropout=own.dropout or 0.0,
        skipped_positions=vocabulary.special.padding() + 1 if model.architecture == "roberta" else 0,
        next_sentence=asks_for_next_sentence(spec),
    )
    check_positions(shape, sequence_tokens, "lower it or raise spec.model.overrides.maxPositions")
    return shape


def asks_for_next_sentence(spec: PretrainRunSpec) -> bool:
    """Whether the objective has pairs of segments."""
    return bool(spec.objective.masked and spec.objective.masked.next_sentence)


def check_positions(shape: ModelConfig, sequence_tokens: int, remedy: str) -> None:
    """Refuses sequences longer than the model can see.

    Raises:
        SpecError: they are.
    """
    if sequence_tokens > shape.positions:
        raise SpecError(
            Reason.SEQUENCE_TOO_LONG,
            f"spec.data.sequenceLength is {sequence_tokens}, the model sees {shape.positions} positions; {remedy}",
        )


def _head_width(sizes: Sizes, heads: int, width: int) -> int:
    if sizes.head_width and (heads, width) == (sizes.heads, sizes.width):
        return sizes.head_width
    if width % heads:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.model: {heads} heads do not divide a width of {width}; "
            "change overrides.heads or overrides.hiddenSize",
        )
    return width // heads


def _key_value_heads(spec: PretrainRunSpec, sizes: Sizes, heads: int) -> int:
    own: ModelOverrides = spec.model.overrides
    if own.key_value_heads and spec.model.architecture != "llama":
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.model.overrides.keyValueHeads: {spec.model.architecture} has as many as heads; leave it out, or "
            "take architecture llama",
        )
    kept = sizes.key_value_heads if heads == sizes.heads else None
    found = own.key_value_heads or kept or heads
    if heads % found:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.model: {found} keyValueHeads do not divide {heads} heads; change overrides.keyValueHeads",
        )
    return found
