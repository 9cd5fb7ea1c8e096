"""The end of an attempt: the artifact, a retry with back-off, or a failed run."""

from dataclasses import replace
from typing import Any

import pytest
from tests.support.operator.builders import (
    artifact,
    ended,
    later,
    report,
    run,
)
from tests.support.operator.plans import after, condition, created, decide, message, pending, running, with_job

from hatchery_api.conditions import Reason
from hatchery_api.contract import ExitCode
from hatchery_api.placement import Retry
from hatchery_api.status import HubRevision
from hatchery_operator.domain.objects import rfc3339


def test_a_report_completes_the_run() -> None:
    subject = running()
    hub = HubRevision(repo="o/c", revision="f" * 40, url="u")
    text = report(hub=hub, result={"quarantined": 3, "from_the_future": 1})
    decided = decide(subject, now=later(60), pods=(ended(0, text),), **with_job(subject, end="Complete"))
    status = decided.status
    assert condition(decided) == ("True", "Completed")
    assert (status.artifact, status.hub) == (artifact(), hub)
    assert getattr(status, "quarantined", None) == 3
    assert status.completion_time == rfc3339(later(60))
    assert (status.current_stage, status.failures) == (None, 0)
    assert status.progress
    assert (status.progress.text, status.progress.percentage) == ("done", 100)
    assert [note.reason for note in decided.user_events] == ["Completed"]


@pytest.mark.parametrize("pods", [(), (ended(0, "no report"),), (ended(0, report(artifact=None)),)])
def test_a_job_that_completes_without_a_report_is_tried_again(pods: tuple[Any, ...]) -> None:
    subject = running()
    decided = decide(subject, pods=pods, **with_job(subject, end="Complete"))
    assert condition(decided) == ("Unknown", "Retrying")
    assert decided.status.failures == 1


def test_only_the_report_of_index_0_counts() -> None:
    subject = running()
    pods = (ended(0, report(), name="other", index=1),)
    assert condition(decide(subject, pods=pods, **with_job(subject, end="Complete"))) == ("Unknown", "Retrying")


@pytest.mark.parametrize("code", [ExitCode.SPEC_ERROR, ExitCode.DATA_ERROR])
def test_an_error_no_attempt_can_mend_ends_the_run_at_once(code: ExitCode) -> None:
    subject = running()
    text = report(reason=Reason.EMPTY_CORPUS, message="no document is left", artifact=None)
    decided = decide(subject, pods=(ended(code, text),), **with_job(subject, end="Failed", reason="PodFailurePolicy"))
    assert condition(decided) == ("False", "EmptyCorpus")
    assert message(decided) == "no document is left"
    assert decided.status.completion_time
    assert condition(decided, "Degraded") == ("True", "EmptyCorpus")
    assert [(note.type, note.reason) for note in decided.user_events] == [("Warning", "EmptyCorpus")]


def test_a_failure_that_may_pass_is_tried_again_after_the_backoff() -> None:
    subject = running()
    text = report(reason=Reason.HUB_UNAVAILABLE, message="the Hub is down", artifact=None)
    decided = decide(subject, pods=(ended(ExitCode.RETRY, text),), **with_job(subject, end="Failed"))
    assert condition(decided) == ("Unknown", "Retrying")
    assert condition(decided, "Degraded") == ("True", "HubUnavailable")
    assert "the Hub is down" in message(decided)
    assert decided.requeue_after == 30
    assert decided.status.stages[0].retry_at == rfc3339(later(30))
    assert decided.status.stages[0].failure == "HubUnavailable"
    assert decided.status.failures == 1


def test_a_failed_attempt_is_charged_once_however_often_it_is_looked_at() -> None:
    subject = running()
    observed = {"pods": (ended(1, "boom"),), **with_job(subject, end="Failed")}
    first = decide(subject, **observed)
    again = decide(after(subject, first), now=later(10), **observed)
    assert again.status == first.status
    assert again.requeue_after == 20
    assert created(again) == ()


def test_backoff_doubles_and_ends_at_ten_minutes() -> None:
    subject, now, waits = run(retry={"maxAttempts": 8, "backoff": "30s"}), 0.0, []
    for _ in range(7):
        subject = after(subject, decide(subject, now=later(now)))
        decided = decide(subject, now=later(now), **with_job(subject, end="Failed"))
        assert decided.requeue_after is not None
        waits.append(decided.requeue_after)
        subject, now = after(subject, decided), now + decided.requeue_after
    assert waits == [30, 60, 120, 240, 480, 600, 600]


def test_the_budget_of_attempts_ends_the_run_with_the_last_reason() -> None:
    subject, now = run(retry={"maxAttempts": 2}), 0.0
    for _ in range(2):
        subject = after(subject, decide(subject, now=later(now)))
        decided = decide(subject, now=later(now), pods=(ended(1, "boom"),), **with_job(subject, end="Failed"))
        subject, now = after(subject, decided), now + 60
    assert condition(decided) == ("False", "AttemptFailed")
    assert "boom" in message(decided)
    assert "attempt 2 of 2" in message(decided)
    assert (decided.status.attempts, decided.status.failures) == (2, 2)


def test_a_job_deleted_by_hand_is_a_failed_attempt() -> None:
    for subject in (pending(), running()):
        decided = decide(subject)
        assert condition(decided) == ("Unknown", "Retrying")
        assert "was deleted" in message(decided)
        assert (decided.status.failures, created(decided)) == (1, ())


def test_a_budget_that_is_lowered_after_the_last_failure_ends_the_run() -> None:
    subject = running()
    subject = after(subject, decide(subject, pods=(ended(1, "boom"),), **with_job(subject, end="Failed")))
    assert subject.spec
    subject = replace(subject, spec=subject.spec.model_copy(update={"retry": Retry(max_attempts=1)}))
    decided = decide(subject, now=later(3600))
    assert condition(decided) == ("False", "AttemptFailed")
    assert "boom" in message(decided)
    assert (decided.status.attempts, decided.status.failures, created(decided)) == (1, 1, ())


@pytest.mark.parametrize(
    ("pods", "reason", "words"),
    [
        ((ended(137, reason="OOMKilled"),), "OutOfMemory", "spec.placement.resources"),
        # a log line of a killed container was once taken for its report
        ((ended(137, '{"event": "started", "kind": "CorpusBuild"}', reason="OOMKilled"),), "OutOfMemory", "resources"),
        ((ended(1, "Traceback\nKeyError: 'x'"),), "AttemptFailed", "KeyError"),
        ((), "AttemptFailed", "BackoffLimitExceeded"),
        ((ended(ExitCode.INTERRUPTED),), "AttemptFailed", "BackoffLimitExceeded"),
        (
            (
                ended(1, "peer lost", at="2026-03-01T12:00:09Z"),
                ended(75, report(reason=Reason.STORAGE_ERROR, message="disk full", artifact=None), name="first"),
            ),
            "StorageError",
            "disk full",
        ),
    ],
)
def test_a_failed_attempt_says_why(pods: tuple[Any, ...], reason: str, words: str) -> None:
    subject = running()
    observed = with_job(subject, end="Failed", reason="BackoffLimitExceeded", message="it is over")
    decided = decide(subject, pods=pods, **observed)
    assert condition(decided, "Degraded") == ("True", reason)
    assert words in message(decided)


def test_a_permanent_error_is_permanent_even_when_no_pod_is_left_to_say_so() -> None:
    subject = running()
    decided = decide(subject, **with_job(subject, end="Failed", reason="PodFailurePolicy", message="exit code 64"))
    assert condition(decided) == ("False", "AttemptFailed")
    assert "exit code 64" in message(decided)


def test_the_attempt_is_counted_in_the_sentence_not_below_the_lines_of_the_log() -> None:
    subject = running(run(retry={"maxAttempts": 1}))
    text = "Traceback (most recent call last):\n  File x\nValueError: no rows\nnoise"
    decided = decide(subject, pods=(ended(1, text),), **with_job(subject, end="Failed"))
    assert message(decided).splitlines()[0].endswith("exit code 1: ValueError: no rows (attempt 1 of 1)")
    assert message(decided).endswith("noise")


def test_a_job_ended_at_a_deadline_does_not_blame_the_pods_that_were_killed_for_it() -> None:
    subject = running(run(retry={"maxAttempts": 1}))
    observed = with_job(
        subject, end="Failed", reason="DeadlineExceeded", message="Job was active longer than specified"
    )
    decided = decide(subject, pods=(ended(137),), **observed)
    assert condition(decided) == ("False", "DeadlineExceeded")
