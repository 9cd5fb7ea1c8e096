"""Builders of resources, Jobs and pods for tests of the operator; each takes only what its case varies."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hatchery_api.base import API_VERSION
from hatchery_api.conditions import Reason
from hatchery_api.contract import Report
from hatchery_api.kinds import BY_KIND
from hatchery_api.status import Artifact
from hatchery_operator.domain.objects import JobSummary, Key, Manifest, Run, parse_run, rfc3339

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NAMESPACE = "team"

SPECS: dict[str, dict[str, Any]] = {
    "CorpusBuild": {"sources": [{"name": "code", "files": {"urls": ["/data/*.py"]}}]},
    "TokenizerBuild": {"corpusRef": {"name": "corpus"}, "build": {}},
    "PretrainRun": {
        "corpora": [{"corpusRef": {"name": "corpus"}}],
        "tokenizerRef": {"name": "tokenizer"},
        "schedule": {"steps": 100},
    },
    "EvalRun": {
        "model": {"pretrainRef": {"name": "model"}},
        "tasks": [{"name": "ppl", "perplexity": {"corpusRef": {"name": "corpus"}}}],
    },
}


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def manifest(
    kind: str = "CorpusBuild", name: str = "code", *, version: int = 1, generation: int = 1, **spec: Any
) -> Manifest:
    """A resource as the API server stores it."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-{kind}-{name}",
            "generation": generation,
            "resourceVersion": str(version),
        },
        "spec": {**SPECS[kind], **spec},
    }


def with_status(run: Run, **changes: Any) -> Run:
    """The run with other status fields."""
    return replace(run, status=run.status.model_copy(update=changes))


def run(kind: str = "CorpusBuild", name: str = "code", **spec: Any) -> Run:
    return parse_run(manifest(kind, name, **spec))


def artifact(digest: str = "d1", claim: str = "hatchery") -> Artifact:
    return Artifact(uri=f"claim://{claim}/team/x/{digest}", digest=digest, bytes=1, key="k")


def finished(kind: str, name: str, digest: str = "d1") -> Run:
    """A run that has succeeded."""
    source = manifest(kind, name)
    source["status"] = {
        "conditions": [condition("Succeeded", "True", "Completed")],
        "artifact": artifact(digest).wire(),
        "completionTime": rfc3339(NOW),
        "startTime": rfc3339(NOW),
        "stages": [
            {"name": stage, "state": "Succeeded", "attempt": 1, "job": f"{name}-{stage}-a1"}
            for stage in BY_KIND[kind].stages
        ],
    }
    return parse_run(source)


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, str]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": rfc3339(NOW - timedelta(hours=1)),
    }


def by_key(*runs: Run) -> dict[Key, Run]:
    return {run.key: run for run in runs}


def job(owner: Run, name: str = "code-build-a1", **changes: Any) -> JobSummary:
    """A Job of a run, just created, without pods."""
    values: dict[str, Any] = {
        "name": name,
        "namespace": owner.namespace,
        "uid": f"uid-{name}",
        "owner": owner.key,
        "owner_uid": owner.uid,
        "version": 1,
        "since": rfc3339(NOW),
    }
    return JobSummary(**{**values, **changes})


def pod(name: str = "code-build-a1-0-x", *, index: int = 0, phase: str = "Running", **status: Any) -> Manifest:
    """A pod as the API server stores it."""
    labels = {"batch.kubernetes.io/job-completion-index": str(index)}
    return {"metadata": {"name": name, "labels": labels}, "status": {"phase": phase, **status}}


def ended(
    code: int, message: str = "", *, reason: str = "Error", at: str = "2026-03-01T12:00:00Z", **pod_values: Any
) -> Manifest:
    """A pod whose container has ended."""
    state = {"terminated": {"exitCode": code, "message": message, "reason": reason, "finishedAt": at}}
    phase = "Failed" if code else "Succeeded"
    return pod(phase=phase, containerStatuses=[{"name": "main", "state": state}], **pod_values)


def waiting(reason: str, message: str = "", **pod_values: Any) -> Manifest:
    """A pod whose container cannot start."""
    state = {"waiting": {"reason": reason, "message": message}}
    statuses = [{"name": "main", "image": "jobs:1", "state": state}]
    return pod(phase="Pending", containerStatuses=statuses, **pod_values)


def report(**values: Any) -> str:
    """A termination message."""
    return Report(**{"reason": Reason.COMPLETED, "artifact": artifact(), **values}).termination_message()
