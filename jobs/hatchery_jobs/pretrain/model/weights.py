"""Pretrained weights to start from: resolves their digest and fetches them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.hub import HubSnapshot, find_snapshot
from hatchery_jobs.runtime import Context

HUB_FIELD: Final = "spec.model.from.hub"
"""Path of the field, for messages."""

FILES: Final = ("config.json", "*.safetensors", "*.safetensors.index.json")
"""Files read from a repository: never code, and never pickled weights, which can run code."""

ROLE: Final = "model"
"""Role of the input artifact of a PretrainRun to start from."""


@dataclass(frozen=True)
class Weights:
    """Where weights come from."""

    digest: str
    """Digest of the run's artifact, or commit of the repository."""
    snapshot: HubSnapshot | None
    """The repository's commit; None for a PretrainRun, whose artifact is an input."""

    @property
    def sources(self) -> dict[str, str]:
        """What the artifact's key needs beside the input artifacts."""
        return {ROLE: self.digest} if self.snapshot else {}

    def folder(self, context: Context[PretrainRunSpec]) -> Path:
        """The files on local disk.

        Raises:
            SpecError: the Hub refuses them.
            RetryableError: the Hub is unreachable.
        """
        if self.snapshot is None:
            return context.input(ROLE)
        return self.snapshot.download(context.scratch / "weights", *FILES)


def find_weights(context: Context[PretrainRunSpec]) -> Weights | None:
    """The weights that the spec names; None for fresh ones.

    Raises:
        SpecError: the Hub has no such model.
        RetryableError: the Hub is unreachable.
    """
    source = context.job.spec.model.from_
    if source is None:
        return None
    if source.hub is None:
        return Weights(context.job.input(ROLE).digest, None)
    endpoint = source.hub.endpoint or context.job.hub.endpoint
    snapshot = find_snapshot(source.hub.repo, source.hub.revision, endpoint, HUB_FIELD)
    return Weights(snapshot.commit, snapshot)
