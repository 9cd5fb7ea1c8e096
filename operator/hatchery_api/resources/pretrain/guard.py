"""What a PretrainRun does when training goes wrong."""

from typing import Annotated, Literal

from pydantic import Field

from hatchery_api.base import Duration, Model


class LossSpike(Model):
    """A loss far above the recent ones."""

    factor: Annotated[float, Field(gt=1, le=1000)] = 2.0
    """A loss above this many times the median of the window is a spike."""

    window: Annotated[int, Field(ge=8, le=10_000)] = 128
    """Updates the median is taken of; before there are as many nothing is a spike."""

    action: Literal["stop", "skip", "rollback"] = "rollback"
    """`stop` ends the run; `skip` leaves the batch out; `rollback` goes back to the newest checkpoint and leaves out
    the batches since, or skips where there is none."""


class Guard(Model):
    """What happens when training goes wrong; what is left out is recorded and stays left out after a resume."""

    non_finite: Literal["stop", "skip", "rollback"] = "stop"
    """What happens when loss or gradient are no number: as in lossSpike.action."""

    loss_spike: LossSpike | None = None
    """Watches for sudden losses; absent: it does not."""

    max_interventions: Annotated[int, Field(ge=1, le=1000)] = 10
    """Batches skipped and roll-backs together, after which the run ends."""

    stall_timeout: Duration = "10m"
    """Time in which nothing is done, and five usual steps at least, after which workers write the stacks of their
    threads to the log and are started again; ten times as long before the first update."""
