"""The argument and the result of a stage function."""

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
    """The operator's input for the pod."""
    progress: ProgressReporter
    """Reports progress to the operator."""
    scratch: Path
    """Local disk, lost with the pod."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set on SIGTERM."""

    def input(self, role: str) -> Path:
        """The verified local folder of an input artifact."""
        record = self.job.input(role)
        return open_input(record.uri, record.digest, self.scratch)

    def draft(
        self, code_version: str, sources: Mapping[str, str] | None = None, spec: Mapping[str, Any] | None = None
    ) -> Draft:
        """Opens the draft of the artifact that this stage makes.

        Args:
            code_version: version of the stage's code; part of the key.
            sources: digests of what the stage reads besides its input artifacts; part of the key.
            spec: the part of the spec that belongs to the key; None: all but operational fields.
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
    """The result of a stage."""

    artifact: Artifact
    """The complete artifact."""
    folder: Path
    """Its local folder."""
    result: Record
    """The kind's Result."""
    cached: bool = False
    """True when the artifact existed already."""
