"""Weights to go on from: found by their digest, fetched, and their sizes read without torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.hub import HubSnapshot, find_snapshot
from hatchery_jobs.pretrain.data.vocabulary import Vocabulary
from hatchery_jobs.pretrain.model.config import ModelConfig, asks_for_next_sentence, check_positions, resolve_shape
from hatchery_jobs.runtime import Context, DataError, SpecError

HUB_FIELD: Final = "spec.model.from.hub"
"""Path of the field, for messages."""

FILES: Final = ("config.json", "*.safetensors", "*.safetensors.index.json")
"""Files of a repository that are read; never code, never pickled weights, which could run code."""

ROLE: Final = "model"
"""Role of the input artifact of a PretrainRun that is gone on from."""


@dataclass(frozen=True)
class Weights:
    """Where weights come from."""

    digest: str
    """Digest of the run's artifact, or commit of the repository."""
    snapshot: HubSnapshot | None
    """The repository's commit; None for a PretrainRun, whose artifact is an input anyway."""

    @property
    def sources(self) -> dict[str, str]:
        """What the artifact's key needs beside the input artifacts."""
        return {ROLE: self.digest} if self.snapshot else {}

    def folder(self, context: Context[PretrainRunSpec]) -> Path:
        """The files on local disk.

        Raises:
            SpecError: the Hub refuses them.
            RetryableError: the Hub cannot be reached.
        """
        if self.snapshot is None:
            return context.input(ROLE)
        return self.snapshot.download(context.scratch / "weights", *FILES)


def find_weights(context: Context[PretrainRunSpec]) -> Weights | None:
    """The weights that the spec names; None for fresh ones.

    Raises:
        SpecError: the Hub has no such model.
        RetryableError: the Hub cannot be reached.
    """
    source = context.job.spec.model.from_
    if source is None:
        return None
    if source.hub is None:
        return Weights(context.job.input(ROLE).digest, None)
    endpoint = source.hub.endpoint or context.job.hub.endpoint
    snapshot = find_snapshot(source.hub.repo, source.hub.revision, endpoint, HUB_FIELD)
    return Weights(snapshot.commit, snapshot)


def model_shape(spec: PretrainRunSpec, vocabulary: Vocabulary, weights: Path | None) -> ModelConfig:
    """The sizes of the model that is trained: the spec's, or those of the weights."""
    return resolve_shape(spec, vocabulary) if weights is None else shape_of_weights(weights, spec, vocabulary)


def shape_of_weights(folder: Path, spec: PretrainRunSpec, vocabulary: Vocabulary) -> ModelConfig:
    """The sizes of a saved model, after everything about it that can be checked without torch.

    Raises:
        SpecError: it is of another family, cannot see so many positions, or the spec has sizes of its own.
        DataError: its configuration is unreadable, or it is too small for the tokenizer.
    """
    config = _config(folder)
    family = spec.model.architecture
    if config.get("model_type") != family:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.model.from: the weights are of family {config.get('model_type')!r}, spec.model.architecture is "
            f"{family!r}; they must be the same",
        )
    _check_overrides(spec)
    try:
        shape = _SHAPES[family](config, spec)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(
            Reason.UNREADABLE_INPUT, f"{folder}/config.json: no configuration of a {family} ({error!r})"
        ) from error
    if shape.vocab < vocabulary.size:  # more embeddings than tokens are usual, for sizes that hardware likes
        raise DataError(
            Reason.VOCABULARY_MISMATCH,
            f"spec.model.from: the weights have embeddings for {shape.vocab} tokens, the tokenizer has "
            f"{vocabulary.size}; set spec.tokenizerRef to the tokenizer the weights were trained with",
        )
    _check_padding(config, spec, vocabulary)
    check_positions(shape, spec.data.sequence_length, "lower it: the weights of spec.model.from decide")
    return shape


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_bytes())
        if not isinstance(config, dict):
            raise TypeError("it is no JSON object")  # noqa: TRY301 - one message for all that is wrong with it
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            Reason.UNREADABLE_INPUT,
            f"spec.model.from: {folder}/config.json cannot be read ({error}); it must be a model saved by transformers",
        ) from error
    return config


def _check_overrides(spec: PretrainRunSpec) -> None:
    own = spec.model.overrides.model_dump(by_alias=True, exclude_none=True)
    if extra := sorted(own.keys() - {"dropout"}):
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.model.overrides: {', '.join(extra)}: the weights of spec.model.from decide the sizes; leave them "
            "out, or leave out spec.model.from",
        )


def _check_padding(config: dict[str, Any], spec: PretrainRunSpec, vocabulary: Vocabulary) -> None:
    """Encoders never learn their padding, RoBERTa counts positions from it, and a T5's decoder begins with it."""
    if spec.objective.type == "causal":
        return
    theirs, ours = config.get("pad_token_id"), vocabulary.special.padding()
    if theirs != ours:
        raise DataError(
            Reason.VOCABULARY_MISMATCH,
            f"spec.model.from: the weights' padding is token {theirs}, the tokenizer's is {ours}; set "
            "spec.tokenizerRef to the tokenizer the weights were trained with",
        )


def _gpt2(config: dict[str, Any], spec: PretrainRunSpec) -> ModelConfig:
    width, heads = config["n_embd"], config["n_head"]
    return ModelConfig(
        architecture="gpt2",
        layers=config["n_layer"],
        heads=heads,
        key_value_heads=heads,
        head_width=width // heads,
        width=width,
        feed_forward=config.get("n_inner") or 4 * width,
        positions=config["n_positions"],
        vocab=config["vocab_size"],
        dropout=spec.model.overrides.dropout or 0.0,
        tied=config.get("tie_word_embeddings", True),
    )


def _llama(config: dict[str, Any], spec: PretrainRunSpec) -> ModelConfig:
    width, heads = config["hidden_size"], config["num_attention_heads"]
    return ModelConfig(
        architecture="llama",
        layers=config["num_hidden_layers"],
        heads=heads,
        key_value_heads=config.get("num_key_value_heads") or heads,
        head_width=config.get("head_dim") or width // heads,
        width=width,
        feed_forward=config["intermediate_size"],
        positions=config["max_position_embeddings"],
        vocab=config["vocab_size"],
        dropout=spec.model.overrides.dropout or 0.0,
        tied=config.get("tie_word_embeddings", False),
    )


def _encoder(config: dict[str, Any], spec: PretrainRunSpec) -> ModelConfig:
    width, heads = config["hidden_size"], config["num_attention_heads"]
    skipped = config["pad_token_id"] + 1 if spec.model.architecture == "roberta" else 0
    return ModelConfig(
        architecture=spec.model.architecture,
        layers=config["num_hidden_layers"],
        heads=heads,
        key_value_heads=heads,
        head_width=width // heads,
        width=width,
        feed_forward=config["intermediate_size"],
        positions=config["max_position_embeddings"] - skipped,
        vocab=config["vocab_size"],
        dropout=spec.model.overrides.dropout or 0.0,
        skipped_positions=skipped,
        next_sentence=asks_for_next_sentence(spec),
        tied=config.get("tie_word_embeddings", True),
    )


def _t5(config: dict[str, Any], spec: PretrainRunSpec) -> ModelConfig:
    return ModelConfig(
        architecture="t5",
        layers=config["num_layers"],
        heads=config["num_heads"],
        key_value_heads=config["num_heads"],
        head_width=config["d_kv"],
        width=config["d_model"],
        feed_forward=config["d_ff"],
        positions=spec.data.sequence_length,  # distances have biases, positions have none: any length will do
        vocab=config["vocab_size"],
        dropout=spec.model.overrides.dropout or 0.0,
        tied=config.get("tie_word_embeddings", True),
        gated=str(config.get("feed_forward_proj", "relu")).startswith("gated-"),
    )


_SHAPES: Final = {"gpt2": _gpt2, "llama": _llama, "bert": _encoder, "roberta": _encoder, "t5": _t5}
