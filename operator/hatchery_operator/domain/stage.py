"""What a stage declares: the artifacts it needs and the shape of its pods."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from hatchery_api.placement import SecretKey

DEFAULT_GRACE_SECONDS: Final = 30.0
"""Termination grace period of a pod without checkpoints."""


@dataclass(frozen=True)
class Need:
    """An artifact a stage reads."""

    role: str
    """Purpose of the artifact; the job looks it up by this name."""
    kind: str = ""
    """Kind of the resource that produces it; empty for an earlier stage of the same resource."""
    name: str = ""
    """Name of the resource, or of the earlier stage."""

    @property
    def is_own(self) -> bool:
        """Whether an earlier stage of the same resource produces it."""
        return not self.kind


@dataclass(frozen=True)
class PodShape:
    """The shape of a stage's pods, apart from what the whole resource sets."""

    nodes: int = 1
    """Pods."""
    processes: int | Literal["auto"] | None = None
    """Processes of a torchrun pod, as in the spec; None for a pod without torchrun."""
    uses_devices: bool = True
    """False for a pod that would hold GPUs without using them."""
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    """Time between the termination signal and the kill."""
    most_workers: int | None = None
    """Workers that have a share of the global batch; None for a pod without torchrun."""
    urls: tuple[str, ...] = ()
    """URLs of the spec that the pods read; those on claims need a mount."""
    token: SecretKey | None = None
    """Secret with the Hub token, for pods that pull or push."""
    tracking_key: SecretKey | None = None
    """Secret with the Weights & Biases key, for pods that log there."""

    @property
    def is_gang(self) -> bool:
        """Whether several pods train together and must reach each other; otherwise each does its share alone."""
        return self.nodes > 1 and self.processes is not None

    @property
    def size(self) -> str:
        """The workers as in the spec; empty for a stage whose number of workers never changes."""
        return "" if self.processes is None else f"{self.nodes}x{self.processes}"


@dataclass(frozen=True)
class Stage:
    """One stage of one kind."""

    name: str
    needs: Callable[[Any], tuple[Need, ...]]
    """The artifacts it reads, from the spec."""
    shape: Callable[[Any], PodShape]
    """The shape of its pods, from the spec."""


def first_token(*secrets: SecretKey | None) -> SecretKey | None:
    """The first that is set: a pod has one token, which must grant access to all it uses."""
    return next((secret for secret in secrets if secret is not None), None)
