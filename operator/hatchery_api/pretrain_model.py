"""The model of a PretrainRun: a configuration, or weights to go on from."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from hatchery_api.base import Model, Ref, Seed, Url, cel, exactly_one, spelled_out
from hatchery_api.placement import HubRepo, SecretKey

Architecture = Literal["gpt2", "llama", "bert", "roberta", "t5"]
"""Families in the transformers library."""

Dropout = Annotated[float, Field(ge=0, lt=1)]
"""A dropout probability."""

_DIVISIBLE = (
    "!has(self.overrides.heads) || !has(self.overrides.hiddenSize)"
    " || self.overrides.hiddenSize % self.overrides.heads == 0"
)


class ModelOverrides(Model):
    """Sizes that replace those of the preset."""

    layers: Annotated[int, Field(ge=1, le=512)] | None = None
    """Transformer blocks; in an encoder-decoder of each half."""
    heads: Annotated[int, Field(ge=1, le=512)] | None = None
    """Attention heads; must divide hiddenSize."""
    key_value_heads: Annotated[int, Field(ge=1, le=512)] | None = None
    """Heads of keys and values (llama); must divide heads."""
    hidden_size: Annotated[int, Field(ge=8, le=65_536)] | None = None
    """Width of the residual stream."""
    feed_forward_size: Annotated[int, Field(ge=8, le=262_144)] | None = None
    """Width of the feed-forward layers."""
    max_positions: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    """Longest sequence the model can see; default: data.sequenceLength."""
    dropout: Dropout | None = None
    """Dropout of embeddings, attention and residuals; 0 suits pretraining in less than one epoch."""


class HubRevisionSource(Model):
    """A revision of a model repository on the Hub."""

    model_config = ConfigDict(json_schema_extra=spelled_out("repo", "revision"))

    repo: HubRepo
    """Repository."""
    revision: Annotated[str, Field(min_length=1, max_length=128)] = "main"
    """Branch, tag or commit."""
    endpoint: Url | None = None
    """URL of a Hub-compatible server; default: the operator's settings, else the public Hub."""
    token_secret: SecretKey | None = None
    """Secret with a token that may read it."""


class Weights(Model):
    """Where weights come from."""

    model_config = ConfigDict(json_schema_extra=cel(exactly_one("pretrainRef", "hub")))

    pretrain_ref: Ref | None = None
    """A PretrainRun in the same namespace."""
    hub: HubRevisionSource | None = None
    """A model on the Hub."""


class PretrainModel(Model):
    """The model, from a configuration or from weights."""

    model_config = ConfigDict(
        json_schema_extra=cel((_DIVISIBLE, "overrides.heads must divide overrides.hiddenSize")),
    )

    architecture: Architecture = "gpt2"
    """Family in the transformers library: gpt2 and llama for causal, bert and roberta for masked, t5 for seq2seq."""

    size: Literal["tiny", "small", "medium", "large", "xl"] = "small"
    """Preset of the family; for gpt2: tiny (4 layers, 4 heads, 128 wide), small (12, 12, 768), medium (24, 16, 1024),
    large (36, 20, 1280), xl (48, 25, 1600)."""

    overrides: ModelOverrides = ModelOverrides()
    """Sizes that replace those of the preset."""

    from_: Annotated[Weights | None, Field(alias="from")] = None
    """Weights to go on from; they decide the sizes."""

    init_seed: Seed = 1
    """Seed of the initial weights."""
