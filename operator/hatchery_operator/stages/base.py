"""The words in which a stage says what it needs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from hatchery_api.contract import CLAIM_SCHEME
from hatchery_api.placement import SecretKey

DEFAULT_GRACE_SECONDS: Final = 30.0
"""Time a pod without checkpoints has to end."""


@dataclass(frozen=True)
class Need:
    """An artifact a stage reads."""

    role: str
    """What it is for; the job asks for it by this word."""
    kind: str = ""
    """Kind of the resource that makes it; empty for an earlier stage of the same resource."""
    name: str = ""
    """Name of the resource, or of the earlier stage."""

    @property
    def is_own(self) -> bool:
        """Whether an earlier stage of the same resource makes it."""
        return not self.kind


@dataclass(frozen=True)
class PodShape:
    """What the pods of a stage look like, beside what the whole resource says."""

    nodes: int = 1
    """Pods."""
    processes: int | Literal["auto"] | None = None
    """Processes of a torchrun pod, as the spec says it; None for a pod without torchrun."""
    uses_devices: bool = True
    """False for a pod that would hold GPUs without using them."""
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    """Time between the termination signal and the kill."""
    most_workers: int | None = None
    """Workers that find something to do; None for a pod without torchrun."""
    urls: tuple[str, ...] = ()
    """URLs of the spec that the pods read; those on claims need a mount."""
    token: SecretKey | None = None
    """Secret with the token of the Hub, for pods that pull or push."""
    tracking_key: SecretKey | None = None
    """Secret with the key of Weights & Biases, for pods that log there."""

    @property
    def is_gang(self) -> bool:
        """Whether several pods work together and must reach each other; else each does its share alone."""
        return self.nodes > 1 and self.processes is not None

    @property
    def size(self) -> str:
        """The workers as the spec asks for them; empty for a stage whose number of workers never changes."""
        return "" if self.processes is None else f"{self.nodes}x{self.processes}"


@dataclass(frozen=True)
class Stage:
    """One stage of one kind."""

    name: str
    needs: Callable[[Any], tuple[Need, ...]]
    """Artifacts it reads, from the spec."""
    shape: Callable[[Any], PodShape]
    """What its pods look like, from the spec."""


def claim_of(url: str) -> str | None:
    """The claim a URL is on."""
    return url.removeprefix(CLAIM_SCHEME).partition("/")[0] if url.startswith(CLAIM_SCHEME) else None


def first_token(*secrets: SecretKey | None) -> SecretKey | None:
    """The first that is set: a pod has one token, which must open all it uses."""
    return next((secret for secret in secrets if secret is not None), None)
