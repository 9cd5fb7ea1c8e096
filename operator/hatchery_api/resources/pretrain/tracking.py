"""Where a PretrainRun logs to beside Prometheus."""

from typing import Annotated, Literal

from pydantic import Field

from hatchery_api.base import Model, Url
from hatchery_api.placement import SecretKey


class WandB(Model):
    """Weights & Biases."""

    project: Annotated[str, Field(min_length=1, max_length=128)]
    """Project the run appears in."""

    entity: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """User or team; default: that of the key."""

    mode: Literal["auto", "online", "offline"] = "auto"
    """`auto`: online with a key, else offline, to be synced later from the artifact."""

    base_url: Url | None = None
    """URL of a server of your own; default: the public one."""

    secret: SecretKey | None = None
    """Secret with the API key."""


class Tracking(Model):
    """Where metrics are logged beside Prometheus."""

    tensorboard: bool = True
    """Writes TensorBoard event files into `run/tensorboard` of the artifact."""

    wandb: WandB | None = None
    """Logs to Weights & Biases."""
