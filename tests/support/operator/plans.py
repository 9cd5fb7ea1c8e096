"""Plans for tests of the planner: a run, what is observed of it, and the plan that follows."""

from dataclasses import replace
from typing import Any

from tests.support.operator.builders import (
    NOW,
    job,
    later,
    run,
)

from hatchery_api.conditions import find_condition
from hatchery_operator.diagnosis.pod_startup import YOUNG_SECONDS
from hatchery_operator.domain.objects import JobSummary, Manifest, Observed, Run, rfc3339
from hatchery_operator.manifests import manifests
from hatchery_operator.planning import Plan, plan
from hatchery_operator.settings import Settings

SETTINGS = Settings()


def decide(subject: Run, **seen: Any) -> Plan:
    return plan(subject, Observed(**{"now": NOW, **seen}), SETTINGS)


def after(subject: Run, decided: Plan) -> Run:
    """The run once its status is written."""
    return replace(subject, status=decided.status)


def with_job(subject: Run, **changes: Any) -> dict[str, dict[str, JobSummary]]:
    name = next(stage.job for stage in subject.status.stages if stage.state != "Succeeded")
    assert name
    return {"jobs": {name: job(subject, name, **changes)}}


def begun(subject: Run | None = None, **seen: Any) -> Run:
    """A run whose first attempt is counted and whose Job is about to be created."""
    subject = subject or run()
    return after(subject, decide(subject, **seen))


def pending(subject: Run | None = None) -> Run:
    subject = begun(subject)
    seen = with_job(subject, active=1, since=rfc3339(later(-YOUNG_SECONDS)))
    return after(subject, decide(subject, **seen))


def running(subject: Run | None = None) -> Run:
    subject = begun(subject)
    return after(subject, decide(subject, **with_job(subject, active=1, ready=1)))


def suspended(subject: Run, *, value: bool) -> Run:
    assert subject.spec
    return replace(subject, spec=subject.spec.model_copy(update={"suspend": value}))


def said(decided: Plan, kind: str = "Succeeded") -> tuple[str, str]:
    condition = find_condition(decided.status.conditions, kind)
    assert condition, f"no condition {kind}"
    return condition.status, condition.reason


def message(decided: Plan, kind: str = "Succeeded") -> str:
    condition = find_condition(decided.status.conditions, kind)
    assert condition
    return condition.message


def stage(decided: Plan, name: str | None = None) -> tuple[str, int]:
    found = next(s for s in decided.status.stages if name in (None, s.name))
    return found.state, found.attempt


def created(decided: Plan) -> tuple[Manifest, ...]:
    """The objects that a plan creates."""
    return manifests(decided.attempt, SETTINGS) if decided.attempt else ()


def kinds(decided: Plan) -> list[str]:
    return [child["kind"] for child in created(decided)]


def told(decided: Plan) -> str:
    """What the pods of the new Job are told."""
    annotations = created(decided)[-1]["spec"]["template"]["metadata"]["annotations"]
    return str(annotations["hatchery.dev/input"])
