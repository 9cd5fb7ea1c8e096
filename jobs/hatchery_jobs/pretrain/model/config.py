"""The sizes of the model to train, from the spec or from pretrained weights, checked without torch."""

import json
from pathlib import Path
from typing import Any

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.data import Vocabulary
from hatchery_jobs.pretrain.model.families import MODEL_FAMILIES, Family, ModelConfig, Sizes, wants_next_sentence
from hatchery_jobs.runtime import DataError, SpecError


def model_config(spec: PretrainRunSpec, vocabulary: Vocabulary, weights: Path | None) -> ModelConfig:
    """The sizes of the model to train: those of the weights' folder if there is one, else the spec's.

    Raises:
        SpecError: the sizes contradict each other, the family or the weights.
        DataError: the tokenizer or the weights cannot be used.
    """
    return resolve_config(spec, vocabulary) if weights is None else config_of_weights(weights, spec, vocabulary)


def resolve_config(spec: PretrainRunSpec, vocabulary: Vocabulary) -> ModelConfig:
    """The sizes of a preset with its overrides.

    Raises:
        SpecError: the sizes contradict each other or the family.
        DataError: the tokenizer lacks a special token that the family needs.
    """
    model, sequence_tokens = spec.model, spec.data.sequence_length
    family, overrides = MODEL_FAMILIES[model.architecture], model.overrides
    sizes = family.presets[model.size]
    heads, width = overrides.heads or sizes.heads, overrides.hidden_size or sizes.width
    config = ModelConfig(
        architecture=model.architecture,
        layers=overrides.layers or sizes.layers,
        heads=heads,
        key_value_heads=_key_value_heads(spec, family, sizes, heads),
        head_width=_head_width(sizes, heads, width),
        width=width,
        feed_forward=overrides.feed_forward_size or sizes.feed_forward * width // sizes.width,
        positions=overrides.max_positions or sequence_tokens,
        vocab=vocabulary.size,
        dropout=overrides.dropout or 0.0,
        skipped_positions=vocabulary.special.padding() + 1 if family.counts_from_padding else 0,
        next_sentence=wants_next_sentence(spec),
    )
    _check_positions(config, sequence_tokens, "lower it or raise spec.model.overrides.maxPositions")
    return config


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


def _key_value_heads(spec: PretrainRunSpec, family: Family, sizes: Sizes, heads: int) -> int:
    requested = spec.model.overrides.key_value_heads
    if requested and not family.shares_key_value_heads:
        sharing = " or ".join(name for name, other in MODEL_FAMILIES.items() if other.shares_key_value_heads)
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.model.overrides.keyValueHeads: {spec.model.architecture} has as many as heads; leave it out, or "
            f"use architecture {sharing}",
        )
    preset = sizes.key_value_heads if heads == sizes.heads else None
    key_value_heads = requested or preset or heads
    if heads % key_value_heads:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.model: {key_value_heads} keyValueHeads do not divide {heads} heads; change overrides.keyValueHeads",
        )
    return key_value_heads


def config_of_weights(folder: Path, spec: PretrainRunSpec, vocabulary: Vocabulary) -> ModelConfig:
    """The sizes of a saved model, after every check that needs no torch.

    Raises:
        SpecError: it is of another family, too short for the sequences, or the spec overrides its sizes.
        DataError: its configuration is unreadable, or it does not match the tokenizer.
    """
    saved = _read_json(folder)
    architecture = spec.model.architecture
    if saved.get("model_type") != architecture:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.model.from: the weights are of family {saved.get('model_type')!r}, spec.model.architecture is "
            f"{architecture!r}; they must be the same",
        )
    overrides = spec.model.overrides.model_dump(by_alias=True, exclude_none=True)
    if extra := sorted(overrides.keys() - {"dropout"}):
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.model.overrides: {', '.join(extra)}: the weights of spec.model.from decide the sizes; leave them "
            "out, or leave out spec.model.from",
        )
    try:
        config = MODEL_FAMILIES[architecture].from_library(saved, spec)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(
            Reason.UNREADABLE_INPUT, f"{folder}/config.json: not a configuration of {architecture} ({error!r})"
        ) from error
    _check_tokenizer(saved, config, vocabulary)
    _check_positions(config, spec.data.sequence_length, "lower it: the weights of spec.model.from decide")
    return config


def _read_json(folder: Path) -> dict[str, Any]:
    try:
        saved = json.loads((folder / "config.json").read_bytes())
        if not isinstance(saved, dict):
            raise TypeError("not a JSON object")  # noqa: TRY301 - one message for every defect
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            Reason.UNREADABLE_INPUT,
            f"spec.model.from: {folder}/config.json cannot be read ({error}); it must be a model saved by transformers",
        ) from error
    return saved


def _check_tokenizer(saved: dict[str, Any], config: ModelConfig, vocabulary: Vocabulary) -> None:
    """More embeddings than tokens are common, for sizes that suit the hardware. Encoders never train their padding,
    RoBERTa counts positions from it, and a T5's decoder starts with it.
    """
    if config.vocab < vocabulary.size:
        raise DataError(
            Reason.VOCABULARY_MISMATCH,
            f"spec.model.from: the weights have embeddings for {config.vocab} tokens, the tokenizer has "
            f"{vocabulary.size}; set spec.tokenizerRef to the tokenizer the weights were trained with",
        )
    if not config.family.uses_padding:
        return
    theirs, ours = saved.get("pad_token_id"), vocabulary.special.padding()
    if theirs != ours:
        raise DataError(
            Reason.VOCABULARY_MISMATCH,
            f"spec.model.from: the weights' padding is token {theirs}, the tokenizer's is {ours}; set "
            "spec.tokenizerRef to the tokenizer the weights were trained with",
        )


def _check_positions(config: ModelConfig, sequence_tokens: int, remedy: str) -> None:
    if sequence_tokens > config.positions:
        raise SpecError(
            Reason.SEQUENCE_TOO_LONG,
            f"spec.data.sequenceLength is {sequence_tokens}, the model has {config.positions} positions; {remedy}",
        )
