"""The model of a PretrainRun: a configuration, or pretrained weights."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from hatchery_api.base import Model, Ref, Seed, Url, cel, one_field, spelled_out
from hatchery_api.placement import HubRepo, SecretKey
from hatchery_api.resources.pretrain.objective import FAMILY_CHOICES, Architecture

Dropout = Annotated[float, Field(ge=0, lt=1)]
"""A dropout probability."""

_DIVISIBLE = (
    "!has(self.overrides.heads) || !has(self.overrides.hiddenSize)"
    " || self.overrides.hiddenSize % self.overrides.heads == 0"
)


class ModelOverrides(Model):
    """Sizes that override the preset."""

    layers: Annotated[int, Field(ge=1, le=512)] | None = None
    """Transformer blocks; of an encoder-decoder, in each half."""
    heads: Annotated[int, Field(ge=1, le=512)] | None = None
    """Attention heads; must divide hiddenSize."""
    key_value_heads: Annotated[int, Field(ge=1, le=512)] | None = None
    """Heads of keys and values (llama); must divide heads."""
    hidden_size: Annotated[int, Field(ge=8, le=65_536)] | None = None
    """Width of the residual stream."""
    feed_forward_size: Annotated[int, Field(ge=8, le=262_144)] | None = None
    """Width of the feed-forward layers; default: proportional to hiddenSize."""
    max_positions: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    """Longest sequence, in tokens; default: data.sequenceLength."""
    dropout: Dropout | None = None
    """Dropout of embeddings, attention and residuals (llama: attention); default: 0, right for a single epoch."""


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
    """Secret with a token that can read the repository."""


class WeightsSpec(Model):
    """Source of weights."""

    model_config = ConfigDict(json_schema_extra=one_field)

    pretrain_ref: Ref | None = None
    """A PretrainRun in the same namespace; this run waits for its model."""
    hub: HubRevisionSource | None = None
    """A model on the Hub, in safetensors."""


class PretrainModel(Model):
    """A model from a configuration or from weights."""

    model_config = ConfigDict(
        json_schema_extra=cel((_DIVISIBLE, "overrides.heads must divide overrides.hiddenSize")),
    )

    architecture: Annotated[Architecture, Field(description=f"Model family: {FAMILY_CHOICES}.")] = "gpt2"

    size: Literal["tiny", "small", "medium", "large", "xl"] = "small"
    """Preset of the family: tiny is for tests on CPUs; docs/training.md lists the parameters of each."""

    overrides: ModelOverrides = ModelOverrides()
    """Sizes that override the preset."""

    from_: Annotated[WeightsSpec | None, Field(alias="from")] = None
    """Initial weights, with a new optimizer from step 0; they determine the sizes."""

    init_seed: Seed = 1
    """Seed of the initial weights."""
