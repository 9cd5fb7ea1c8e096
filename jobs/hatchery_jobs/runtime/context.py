"""What a stage function gets, and what it gives back."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from hatchery_api.base import Record
from hatchery_api.contract import JobInput, SpecT, artifact_key, stage_spec
from hatchery_api.status import Artifact
from hatchery_jobs.runtime.artifacts import Draft, open_draft, open_input
from hatchery_jobs.runtime.progress import ProgressReporter


@dataclass(frozen=True)
class Context(Generic[SpecT]):
    """One stage of one run."""

    job: JobInput[SpecT]
    """What the operator told the pod."""
    progress: ProgressReporter
    """Live progress."""
    scratch: Path
    """Local disk, lost with the pod."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the pod is asked to end."""

    def input(self, role: str) -> Path:
        """The verified local folder of an input artifact."""
        record = self.job.input(role)
        return open_input(record.uri, record.digest, self.scratch)

    def draft(
        self, code_version: str, sources: Mapping[str, str] | None = None, spec: Mapping[str, Any] | None = None
    ) -> Draft:
        """The artifact this stage makes.

        Args:
            code_version: version of the stage's code; a change means a new artifact.
            sources: digests of what the stage reads beside its input artifacts.
            spec: the part of the spec that decides what the stage makes; None: all that is not operational.
        """
        part = stage_spec(self.job.spec) if spec is None else dict(spec)
        inputs = {i.role: i.digest for i in self.job.inputs} | dict(sources or {})
        key = artifact_key(self.job.stage, code_version, part, inputs)
        facts = {
            "apiVersion": self.job.api_version,
            "kind": self.job.kind,
            "stage": self.job.stage,
            "codeVersion": code_version,
            "spec": part,
            "inputs": inputs,
        }
        return open_draft(self.job.output.root, key, facts, self.scratch)


@dataclass(frozen=True)
class Outcome:
    """What a stage made."""

    artifact: Artifact
    """The complete artifact."""
    folder: Path
    """Its local folder."""
    result: Record
    """The kind's Result."""
    cached: bool = False
    """True when it was there already."""
