"""A run whose pods run without reporting progress: Stalled, with the time and the place, until progress arrives."""

from dataclasses import replace
from typing import Any

from tests.support.operator.builders import NOW, job, later, run

from hatchery_api.conditions import Condition, ConditionType, find_condition
from hatchery_api.status import ProgressStatus
from hatchery_operator.domain.objects import Observed, Run, rfc3339
from hatchery_operator.planning import Plan, plan
from hatchery_operator.settings import Settings

SETTINGS = Settings(stalled_seconds=600)
JOB = "code-build-a1"


def decide(subject: Run, seconds: float, **seen: Any) -> Plan:
    """A pass over a run whose pods run."""
    jobs = {JOB: job(subject, JOB, active=1, ready=1)}
    return plan(subject, Observed(**{"now": later(seconds), "jobs": jobs, **seen}), SETTINGS)


def running(progress: ProgressStatus | None = None) -> Run:
    """A run that works, and what it last reported."""
    subject = run()
    for _ in range(2):
        decided = plan(subject, Observed(NOW), SETTINGS)
        subject = replace(subject, status=decided.status)
    subject = replace(subject, status=decide(subject, 0).status)
    return replace(subject, status=subject.status.model_copy(update={"progress": progress}))


def reported(seconds: float = 0) -> ProgressStatus:
    return ProgressStatus(text="5/10 (50%)", percentage=50, updated_at=rfc3339(later(seconds)))


def stalled(decided: Plan) -> Condition | None:
    return find_condition(decided.status.conditions, ConditionType.STALLED)


def test_a_run_that_moves_is_never_called_stalled_and_is_looked_at_when_it_could_be() -> None:
    decided = decide(running(reported()), 100)
    assert stalled(decided) is None
    assert decided.requeue_after == 500


def test_a_run_that_has_gone_silent_is_stalled_and_says_since_when_and_where_to_look() -> None:
    subject = running(reported())
    decided = decide(subject, 600)
    condition = stalled(decided)
    assert condition
    assert (condition.status, condition.reason) == ("True", "NoProgress")
    assert rfc3339(NOW) in condition.message
    assert "5/10 (50%)" in condition.message
    assert f"logs job/{JOB}" in condition.message
    verdict = find_condition(decided.status.conditions, ConditionType.SUCCEEDED)
    assert verdict
    assert (verdict.status, verdict.reason) == ("Unknown", "Running")
    assert "1 of 1 pods of Job code-build-a1 are running; no progress reported since" in verdict.message
    assert [(note.type, note.reason) for note in decided.user_events] == [("Warning", "NoProgress")]
    again = decide(replace(subject, status=decided.status), 3600)
    assert (again.status, again.user_events) == (decided.status, ())


def test_a_stalled_run_that_moves_again_says_so() -> None:
    subject = running(reported())
    subject = replace(subject, status=decide(subject, 600).status)
    subject = replace(subject, status=subject.status.model_copy(update={"progress": reported(700)}))
    condition = stalled(decide(subject, 701))
    assert condition
    assert (condition.status, condition.message) == ("False", "")


def test_an_operator_that_was_away_blames_nobody_for_the_silence() -> None:
    decided = decide(running(reported()), 6000, listening_since=later(5900))
    assert stalled(decided) is None
    assert decided.requeue_after == 500


def test_pods_that_never_reported_are_not_known_to_hang() -> None:
    decided = decide(running(), 86_400)
    assert (stalled(decided), decided.requeue_after) == (None, None)


def test_a_stalled_run_that_ends_is_stalled_no_more() -> None:
    subject = running(reported())
    subject = replace(subject, status=decide(subject, 600).status)
    ended = plan(
        subject,
        Observed(now=later(700), jobs={JOB: job(subject, JOB, end="Failed", reason="x", message="y")}),
        SETTINGS,
    )
    condition = stalled(ended)
    assert condition
    assert condition.status == "False"
