"""The model families: presets, parameter counts, and the mapping between `ModelConfig` and the transformers library.

Everything that differs between families is here, known without importing torch or transformers; the library's classes
and settings are named by strings. A new family is an entry in `MODEL_FAMILIES` and the functions it names.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from hatchery_api.resources.pretrain import Architecture, PretrainRunSpec
from hatchery_jobs.pretrain.data import SpecialIds

RELATIVE_POSITIONS: Final = 32
"""Buckets of distances for which each half of a T5 has a bias."""

FUSED_GELU: Final = "gelu_pytorch_tanh"
"""The same function as GPT-2's and T5's gelu_new as one kernel: 10 to 30 % more tokens per second. The activations of
the other families, gelu and silu, are single kernels already."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a preset."""

    layers: int
    """Transformer blocks; in an encoder-decoder, of each half."""
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


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of a model."""

    architecture: Architecture
    """Family."""
    layers: int
    """Transformer blocks; in an encoder-decoder, of each half."""
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
    """Dropout of embeddings, attention and residuals; in llama, of attention alone."""
    skipped_positions: int = 0
    """Rows of the position table before the first position; RoBERTa counts from one after the padding id."""
    next_sentence: bool = False
    """Whether there is a next-sentence head."""
    tied: bool = True
    """Whether the output layer shares the token embedding."""
    gated: bool = True
    """Whether the feed-forward layers of a T5 are gated, as since version 1.1."""

    @property
    def family(self) -> "Family":
        """The family."""
        return MODEL_FAMILIES[self.architecture]

    @property
    def parameters(self) -> int:
        """Trainable parameters."""
        tokens = self.width * self.vocab * (1 if self.tied else 2)
        positions = self.width * (self.positions + self.skipped_positions) if self.family.position_table else 0
        return (
            tokens + positions + self.layers * self.family.block_parameters(self) + self.family.other_parameters(self)
        )

    @property
    def attention_weights(self) -> int:
        """Weights of one attention layer: queries, keys, values and output."""
        return 2 * self.width * self.head_width * (self.heads + self.key_value_heads)

    @property
    def feed_forward_weights(self) -> int:
        """Weights of one feed-forward layer."""
        return self.family.feed_forward_matrices(self) * self.width * self.feed_forward

    @property
    def init_std(self) -> float:
        """Standard deviation of fresh weights: 0.023 for a width of 768, where GPT-2 has 0.02 for every width.

        Nguyen and Salazar 2019, "Transformers without Tears", arXiv:1910.05895, section 2.2. Narrow models learn faster
        with it.
        """
        return math.sqrt(2 / (5 * self.width))

    def flops_per_token(self, sequence_tokens: int, target_tokens: int = 0) -> float:
        """Floating-point operations of one training step per input token (PaLM, appendix B).

        Forward and backward pass take 6 for each weight a token is multiplied with, including the output layer and
        excluding lookup tables, and 12 for each number of a query and token it is compared with. A causal mask does not
        count as a saving. A T5 also has `target_tokens` for each `sequence_tokens`.
        """
        return self.family.flops_per_token(self, sequence_tokens, target_tokens)


Saved = Mapping[str, Any]
"""A `config.json` that transformers wrote."""


def _plain_flops(config: ModelConfig, sequence_tokens: int, _target_tokens: int) -> float:
    blocks = config.layers * (config.attention_weights + config.feed_forward_weights)
    attention = 12.0 * config.layers * config.heads * config.head_width * sequence_tokens
    return 6.0 * (blocks + config.width * config.vocab) + attention


@dataclass(frozen=True, kw_only=True)
class Family:
    """What differs between the families of models."""

    title: str
    """Name as its authors write it."""
    presets: Mapping[str, Sizes]
    """Sizes of each `spec.model.size`, published ones where they exist."""
    library_model: str
    """Class of the model in transformers."""
    library_config: str
    """Class of its configuration in transformers."""
    dropouts: tuple[str, ...]
    """Names of the dropouts in the library's configuration."""
    to_library: Callable[[ModelConfig, SpecialIds], dict[str, Any]]
    """Settings of the library's configuration for a fresh model."""
    from_library: Callable[[Saved, PretrainRunSpec], ModelConfig]
    """Sizes in a saved configuration; raises KeyError, TypeError, ValueError or ZeroDivisionError if it is invalid."""
    block_parameters: Callable[[ModelConfig], int]
    """Parameters of one block; of a T5, of one encoder and one decoder block."""
    other_parameters: Callable[[ModelConfig], int]
    """Parameters beside blocks, token embedding, output layer and position table."""
    feed_forward_matrices: Callable[[ModelConfig], int] = lambda _: 2
    """Matrices in a feed-forward layer."""
    flops_per_token: Callable[[ModelConfig, int, int], float] = _plain_flops
    """See `ModelConfig.flops_per_token`."""
    library_next_sentence_model: str | None = None
    """Class of the model with a next-sentence head; None: the family has none."""
    position_table: str | None = None
    """Name of the table of trained positions; None: the family has none."""
    counts_from_padding: bool = False
    """Whether the first position is the row after the padding id in the position table."""
    segments: int = 0
    """Segment embeddings."""
    optional_parameters: tuple[str, ...] = ()
    """Prefixes of parameters that pretrained weights may lack."""
    uses_padding: bool = True
    """Whether the padding token has a role in the model, so that weights and tokenizer must agree on it."""
    shares_key_value_heads: bool = False
    """Whether several heads may share keys and values."""


def wants_next_sentence(spec: PretrainRunSpec) -> bool:
    """Whether the objective has pairs of segments."""
    return bool(spec.objective.masked and spec.objective.masked.next_sentence)


def _block_with_biases(config: ModelConfig) -> int:
    biases_and_norms = 4 * config.width + config.feed_forward + config.width + 4 * config.width
    return config.attention_weights + config.feed_forward_weights + biases_and_norms


def _gpt2_to_library(config: ModelConfig, special: SpecialIds) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab,
        "n_positions": config.positions,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": config.feed_forward,
        "activation_function": FUSED_GELU,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "initializer_range": config.init_std,
        "bos_token_id": special.eos,  # in training, texts follow the end of another one
        "eos_token_id": special.eos,
    }


def _gpt2_from_library(saved: Saved, spec: PretrainRunSpec) -> ModelConfig:
    width, heads = saved["n_embd"], saved["n_head"]
    return ModelConfig(
        architecture=spec.model.architecture,
        layers=saved["n_layer"],
        heads=heads,
        key_value_heads=heads,
        head_width=width // heads,
        width=width,
        feed_forward=saved.get("n_inner") or 4 * width,
        positions=saved["n_positions"],
        vocab=saved["vocab_size"],
        dropout=spec.model.overrides.dropout or 0.0,
        tied=saved.get("tie_word_embeddings", True),
    )


_GPT2: Final = Family(
    title="GPT-2",
    presets={
        "tiny": Sizes(4, 4, 128, 512),
        "small": Sizes(12, 12, 768, 3072),
        "medium": Sizes(24, 16, 1024, 4096),
        "large": Sizes(36, 20, 1280, 5120),
        "xl": Sizes(48, 25, 1600, 6400),
    },
    library_model="GPT2LMHeadModel",
    library_config="GPT2Config",
    dropouts=("embd_pdrop", "attn_pdrop", "resid_pdrop"),
    to_library=_gpt2_to_library,
    from_library=_gpt2_from_library,
    block_parameters=_block_with_biases,
    other_parameters=lambda config: 2 * config.width,
    position_table="transformer.wpe",
    uses_padding=False,
)


def _llama_to_library(config: ModelConfig, special: SpecialIds) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab,
        "max_position_embeddings": config.positions,
        "hidden_size": config.width,
        "intermediate_size": config.feed_forward,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.head_width,
        "attention_dropout": config.dropout,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tied,
        "bos_token_id": special.eos,
        "eos_token_id": special.eos,
    }


def _llama_from_library(saved: Saved, spec: PretrainRunSpec) -> ModelConfig:
    width, heads = saved["hidden_size"], saved["num_attention_heads"]
    return ModelConfig(
        architecture=spec.model.architecture,
        layers=saved["num_hidden_layers"],
        heads=heads,
        key_value_heads=saved.get("num_key_value_heads") or heads,
        head_width=saved.get("head_dim") or width // heads,
        width=width,
        feed_forward=saved["intermediate_size"],
        positions=saved["max_position_embeddings"],
        vocab=saved["vocab_size"],
        dropout=spec.model.overrides.dropout or 0.0,
        tied=saved.get("tie_word_embeddings", False),
    )


_LLAMA: Final = Family(
    title="Llama",
    presets={
        "tiny": Sizes(4, 4, 128, 384, key_value_heads=2),
        "small": Sizes(30, 9, 576, 1536, key_value_heads=3),  # SmolLM-135M
        "medium": Sizes(32, 15, 960, 2560, key_value_heads=5),  # SmolLM-360M
        "large": Sizes(16, 32, 2048, 8192, key_value_heads=8),  # Llama-3.2-1B
        "xl": Sizes(28, 24, 3072, 8192, key_value_heads=8),  # Llama-3.2-3B
    },
    library_model="LlamaForCausalLM",
    library_config="LlamaConfig",
    dropouts=("attention_dropout",),
    to_library=_llama_to_library,
    from_library=_llama_from_library,
    block_parameters=lambda config: config.attention_weights + config.feed_forward_weights + 2 * config.width,
    other_parameters=lambda config: config.width,
    feed_forward_matrices=lambda _: 3,
    uses_padding=False,
    shares_key_value_heads=True,
)


def _encoder_to_library(config: ModelConfig, special: SpecialIds) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab,
        "max_position_embeddings": config.positions + config.skipped_positions,
        "hidden_size": config.width,
        "intermediate_size": config.feed_forward,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "type_vocab_size": config.family.segments,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
        "initializer_range": config.init_std,
        "bos_token_id": special.cls,
        "eos_token_id": special.sep,
        "pad_token_id": special.padding(),
    }


def _encoder_from_library(saved: Saved, spec: PretrainRunSpec) -> ModelConfig:
    width, heads = saved["hidden_size"], saved["num_attention_heads"]
    family = MODEL_FAMILIES[spec.model.architecture]
    skipped = saved["pad_token_id"] + 1 if family.counts_from_padding else 0
    return ModelConfig(
        architecture=spec.model.architecture,
        layers=saved["num_hidden_layers"],
        heads=heads,
        key_value_heads=heads,
        head_width=width // heads,
        width=width,
        feed_forward=saved["intermediate_size"],
        positions=saved["max_position_embeddings"] - skipped,
        vocab=saved["vocab_size"],
        dropout=spec.model.overrides.dropout or 0.0,
        skipped_positions=skipped,
        next_sentence=wants_next_sentence(spec),
        tied=saved.get("tie_word_embeddings", True),
    )


def _encoder_other_parameters(config: ModelConfig) -> int:
    width = config.width
    head = width * width + width + 2 * width + config.vocab
    pooler = width * width + width + 2 * width + 2 if config.next_sentence else 0
    return config.family.segments * width + 2 * width + head + pooler


def _encoder_flops(config: ModelConfig, sequence_tokens: int, target_tokens: int) -> float:
    layer_before_output = config.width * config.width
    return _plain_flops(config, sequence_tokens, target_tokens) + 6.0 * layer_before_output


_BERT: Final = Family(
    title="BERT",
    presets={
        "tiny": Sizes(2, 2, 128, 512),  # BERT-tiny
        "small": Sizes(12, 12, 768, 3072),  # BERT-base, RoBERTa-base
        "medium": Sizes(24, 16, 1024, 4096),  # BERT-large, RoBERTa-large
        "large": Sizes(24, 24, 1536, 6144),  # as DeBERTa-v2-xlarge
        "xl": Sizes(24, 32, 2048, 8192),  # as Megatron-BERT 1.3B
    },
    library_model="BertForMaskedLM",
    library_next_sentence_model="BertForPreTraining",
    library_config="BertConfig",
    dropouts=("hidden_dropout_prob", "attention_probs_dropout_prob"),
    to_library=_encoder_to_library,
    from_library=_encoder_from_library,
    block_parameters=_block_with_biases,
    other_parameters=_encoder_other_parameters,
    flops_per_token=_encoder_flops,
    segments=2,
    position_table="bert.embeddings.position_embeddings",
    optional_parameters=("bert.pooler.", "cls.seq_relationship."),  # masked models without a next-sentence head
)

_ROBERTA: Final = replace(
    _BERT,
    title="RoBERTa",
    library_model="RobertaForMaskedLM",
    library_next_sentence_model=None,
    library_config="RobertaConfig",
    position_table="roberta.embeddings.position_embeddings",
    counts_from_padding=True,
    segments=1,
    optional_parameters=(),
)


def _t5_to_library(config: ModelConfig, special: SpecialIds) -> dict[str, Any]:
    """Version 1.1 with tied embeddings as in version 1: gated layers learn more for their size, and one table for input
    and output suits the small vocabulary of a custom corpus.
    """
    return {
        "vocab_size": config.vocab,
        "n_positions": config.positions,
        "d_model": config.width,
        "d_kv": config.head_width,
        "d_ff": config.feed_forward,
        "num_layers": config.layers,
        "num_heads": config.heads,
        "relative_attention_num_buckets": RELATIVE_POSITIONS,
        "feed_forward_proj": f"gated-{FUSED_GELU}",
        "dropout_rate": config.dropout,
        "pad_token_id": special.padding(),
        "decoder_start_token_id": special.padding(),
        "eos_token_id": special.eos,
    }


def _t5_from_library(saved: Saved, spec: PretrainRunSpec) -> ModelConfig:
    return ModelConfig(
        architecture=spec.model.architecture,
        layers=saved["num_layers"],
        heads=saved["num_heads"],
        key_value_heads=saved["num_heads"],
        head_width=saved["d_kv"],
        width=saved["d_model"],
        feed_forward=saved["d_ff"],
        positions=spec.data.sequence_length,  # relative positions have no limit
        vocab=saved["vocab_size"],
        dropout=spec.model.overrides.dropout or 0.0,
        tied=saved.get("tie_word_embeddings", True),
        gated=str(saved.get("feed_forward_proj", "relu")).startswith("gated-"),
    )


def _t5_flops(config: ModelConfig, sequence_tokens: int, target_tokens: int) -> float:
    row = config.heads * config.head_width
    cross_keys = config.attention_weights // 2  # made from input tokens, though part of the decoder
    read = config.layers * (config.attention_weights + config.feed_forward_weights + cross_keys)
    written = config.layers * (2 * config.attention_weights + config.feed_forward_weights - cross_keys)
    of_input = 6.0 * read + 12.0 * config.layers * row * sequence_tokens
    compared = target_tokens + sequence_tokens
    of_target = 6.0 * (written + config.width * config.vocab) + 12.0 * config.layers * row * compared
    return of_input + of_target * target_tokens / sequence_tokens


_T5: Final = Family(
    title="T5",
    presets={
        "tiny": Sizes(4, 4, 256, 1024, head_width=64),  # T5-efficient-tiny
        "small": Sizes(8, 6, 512, 1024, head_width=64),  # T5 v1.1 small
        "medium": Sizes(12, 12, 768, 2048, head_width=64),  # T5 v1.1 base
        "large": Sizes(24, 16, 1024, 2816, head_width=64),  # T5 v1.1 large
        "xl": Sizes(24, 32, 2048, 5120, head_width=64),  # T5 v1.1 xl
    },
    library_model="T5ForConditionalGeneration",
    library_config="T5Config",
    dropouts=("dropout_rate",),
    to_library=_t5_to_library,
    from_library=_t5_from_library,
    block_parameters=lambda c: 3 * c.attention_weights + 2 * c.feed_forward_weights + 5 * c.width,
    other_parameters=lambda config: 2 * (RELATIVE_POSITIONS * config.heads + config.width),
    feed_forward_matrices=lambda config: 3 if config.gated else 2,
    flops_per_token=_t5_flops,
)

MODEL_FAMILIES: Final[dict[Architecture, Family]] = {
    "gpt2": _GPT2,
    "llama": _LLAMA,
    "bert": _BERT,
    "roberta": _ROBERTA,
    "t5": _T5,
}
"""Every `spec.model.architecture`."""
