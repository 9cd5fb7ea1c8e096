"""Plans for tests of the planner: a run, what is observed of it, and the plan that follows."""

from dataclasses import replace
from typing import Any

from tests.support.operator.builders import NOW, artifact, by_key, ended, finished, job, later, report, run

from hatchery_api.conditions import find_condition
from hatchery_operator.diagnosis.pod_startup import YOUNG_SECONDS
from hatchery_operator.domain.objects import JobSummary, Manifest, Observed, Run, rfc3339
from hatchery_operator.manifests import manifests
from hatchery_operator.planning import Plan, plan
from hatchery_operator.settings import Settings

SETTINGS = Settings()

REFERENCES = by_key(finished("CorpusBuild", "corpus", "c1"), finished("TokenizerBuild", "tokenizer", "t1"))
"""What a PretrainRun reads, ready."""


def decide(subject: Run, **observed: Any) -> Plan:
    """The plan for a run; `observed` holds fields of `Observed`."""
    return plan(subject, Observed(**{"now": NOW, **observed}), SETTINGS)


def after(subject: Run, decided: Plan) -> Run:
    """The run once its status is written."""
    return replace(subject, status=decided.status)


def with_job(subject: Run, **changes: Any) -> dict[str, dict[str, JobSummary]]:
    """Observes the current Job of a run."""
    name = next(stage.job for stage in subject.status.stages if stage.state != "Succeeded")
    assert name
    return {"jobs": {name: job(subject, name, **changes)}}


def begun(subject: Run | None = None, **observed: Any) -> Run:
    """A run whose first attempt is counted and whose Job is about to be created."""
    subject = subject or run()
    return after(subject, decide(subject, **observed))


def pending(subject: Run | None = None) -> Run:
    """A run whose Job has pods that do not run yet."""
    subject = begun(subject)
    observed = with_job(subject, active=1, since=rfc3339(later(-YOUNG_SECONDS)))
    return after(subject, decide(subject, **observed))


def running(subject: Run | None = None) -> Run:
    """A run whose pods run."""
    subject = begun(subject)
    return after(subject, decide(subject, **with_job(subject, active=1, ready=1)))


def suspended(subject: Run, *, value: bool) -> Run:
    """The run with `spec.suspend` set."""
    assert subject.spec
    return replace(subject, spec=subject.spec.model_copy(update={"suspend": value}))


def condition(decided: Plan, kind: str = "Succeeded") -> tuple[str, str]:
    """Status and reason of a condition."""
    found = find_condition(decided.status.conditions, kind)
    assert found, f"no condition {kind}"
    return found.status, found.reason


def message(decided: Plan, kind: str = "Succeeded") -> str:
    """Message of a condition."""
    found = find_condition(decided.status.conditions, kind)
    assert found
    return found.message


def stage(decided: Plan, name: str | None = None) -> tuple[str, int]:
    """State and attempt of a stage, by default the first."""
    found = next(s for s in decided.status.stages if name in (None, s.name))
    return found.state, found.attempt


def created(decided: Plan) -> tuple[Manifest, ...]:
    """The objects that a plan creates."""
    return manifests(decided.attempt, SETTINGS) if decided.attempt else ()


def kinds(decided: Plan) -> list[str]:
    """Kinds of the objects that a plan creates."""
    return [child["kind"] for child in created(decided)]


def input_text(decided: Plan) -> str:
    """The input of the new Job's pods, as JSON."""
    annotations = created(decided)[-1]["spec"]["template"]["metadata"]["annotations"]
    return str(annotations["hatchery.dev/input"])


def trained(references: dict[Any, Run], one: Run | None = None) -> tuple[Run, Plan]:
    """A PretrainRun whose encode stage is complete, and the plan that completed it."""
    subject = begun(one or run("PretrainRun", "model"), references=references)
    subject = after(subject, decide(subject, references=references, **with_job(subject, ready=1)))
    text = report(artifact=artifact("tokens"), result={"parameters": 7})
    decided = decide(subject, references=references, pods=(ended(0, text),), **with_job(subject, end="Complete"))
    return after(subject, decided), decided
