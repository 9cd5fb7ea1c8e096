"""Why not all pods of a Job run, when to ask again, and why a Job failed; pure."""

from typing import Final

from hatchery_api.conditions import Reason
from hatchery_operator.diagnosis import pods
from hatchery_operator.diagnosis.waiting import blocked, pulling
from hatchery_operator.domain.backoff import next_look
from hatchery_operator.domain.diagnosis import AttemptFailure, Diagnosis
from hatchery_operator.domain.objects import JobSummary, Run, parse_time
from hatchery_operator.domain.observed import Observed
from hatchery_operator.domain.spec_paths import SpecPaths
from hatchery_operator.settings import Settings

YOUNG_SECONDS: Final = 10.0
"""A Job of a few seconds has nothing to say yet, and to write that would cost as much as to start another one."""


def trouble(run: Run, seen: Observed, settings: Settings) -> Diagnosis | None:
    """Why not all pods run: some cannot start, some cannot be made, some were lost."""
    names = SpecPaths.of(run, settings)
    found = blocked(seen.pods, seen.events, names) or seen.refusal
    return found or pods.setback(seen.pods, names)


def failure_of(job: JobSummary, run: Run, seen: Observed, settings: Settings) -> AttemptFailure:
    """Why a Job failed: the pods' own words, or the Job's when no pod is left to say why."""
    if job.reason == "DeadlineExceeded":
        said = f"Job {job.name} was ended at its activeDeadlineSeconds, which somebody has set: {job.message}"
        return AttemptFailure(Reason.DEADLINE_EXCEEDED, said)
    said = f"Job {job.name} failed: {job.reason}: {job.message}; its pods are gone, and so is what they said"
    return pods.failure(seen.pods, SpecPaths.of(run, settings)) or AttemptFailure(
        Reason.ATTEMPT_FAILED, said, job.reason == "PodFailurePolicy"
    )


def begun(job: str) -> str:
    """What is said from the moment a Job is to be made."""
    return f"Job {job} and its pods are starting"


def starting(job: JobSummary, seen: Observed) -> str:
    """What is said of pods that do not run, when nothing is wrong."""
    if image := pulling(seen.pods, seen.events):
        return f"{begun(job.name)}: image {image} is being pulled"
    return begun(job.name) if job.active or is_young(job, seen) else f"Job {job.name} has no pods yet"


def is_young(job: JobSummary, seen: Observed) -> bool:
    """Whether a Job was made just now."""
    return _age(job, seen) < YOUNG_SECONDS


def patience(job: JobSummary, seen: Observed, *, explained: bool) -> float:
    """When to ask again why pods do not run, by the time since something happened to them."""
    changed = pods.changed_at(seen.pods)
    age = max(0.0, _age(job, seen))
    if changed:
        age = min(age, (seen.now - changed).total_seconds())
    return next_look(age, explained=explained)


def _age(job: JobSummary, seen: Observed) -> float:
    return (seen.now - parse_time(job.since)).total_seconds()
