"""A fleet of resources in every phase, as the operator's cache holds them: samples for metrics and dashboards."""

from datetime import datetime
from typing import Any

from tests.support.operator.builders import NOW, artifact, condition, manifest, rfc3339

from hatchery_api.kinds import KINDS
from hatchery_operator.domain.objects import Manifest, Run, parse_run

COMMIT = "0123456789abcdef" * 2 + "01234567"
REASONS = {
    "Waiting": ("Unknown", "Waiting"),
    "Pending": ("Unknown", "Queued"),
    "Running": ("Unknown", "Running"),
    "Retrying": ("Unknown", "Retrying"),
    "Suspended": ("Unknown", "Suspended"),
    "Resizing": ("Unknown", "Resizing"),
    "Succeeded": ("True", "Completed"),
    "Failed": ("False", "NonFiniteLoss"),
}


def sample(kind: str, name: str, phase: str, at: datetime = NOW) -> Manifest:
    """A resource in a phase, with everything in its status that the phase allows."""
    stages = {k.kind: k.stages for k in KINDS}[kind]
    is_over = phase in ("Succeeded", "Failed")
    succeeded, reason = REASONS[phase]
    status: dict[str, Any] = {
        "observedGeneration": 1,
        "conditions": [
            condition("Succeeded", succeeded, reason, f"commit {COMMIT} of /claims/x/step-100: not sha256:1"),
            condition("Progressing", "False" if is_over else "True", reason),
        ],
        "attempts": 2,
        "failures": 1,
        "disruptions": 1,
        "startTime": rfc3339(at),
        "stages": [
            *({"name": stage, "state": "Succeeded", "attempt": 1} for stage in stages[:-1]),
            {"name": stages[-1], "state": phase, "attempt": 1},
        ],
        "progress": {"text": "9/20", "percentage": 45, "updatedAt": rfc3339(at)},
    }
    if is_over:
        status["completionTime"] = rfc3339(at)
    else:
        status["currentStage"] = stages[-1]
    if phase == "Succeeded":
        status |= {
            "artifact": artifact().wire(),
            "hub": {"repo": "a/b", "revision": COMMIT, "url": f"https://x/{COMMIT}"},
        }
        status |= _results(kind)
    return {**manifest(kind, name), "status": status}


def _results(kind: str) -> dict[str, Any]:
    if kind == "PretrainRun":
        return {"steps": 100, "loss": {"train": 2.5, "eval": 2.6, "initial": 9.2}, "perplexity": 13.5}
    if kind == "EvalRun":
        measures = [("code", "perplexity", "13.5"), ("code", "bitsPerByte", "1.1"), ("syntax", "parses", "0.8")]
        return {"results": [{"task": t, "metric": m, "value": v, "n": 9} for t, m, v in measures]}
    return {}


def fleet(size: int) -> list[Run]:
    """Resources of all kinds in all phases, in turn."""
    phases = list(REASONS)
    return [parse_run(sample(KINDS[n % 4].kind, f"run-{n}", phases[n // 4 % len(phases)])) for n in range(size)]
