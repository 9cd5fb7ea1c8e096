"""The status a plan writes: counters, progress, conditions."""

from tests.support.operator.builders import (
    NOW,
    artifact,
    ended,
    later,
    pod,
    report,
    run,
    waiting,
    with_status,
)
from tests.support.operator.plans import (
    REFERENCES,
    after,
    condition,
    decide,
    message,
    pending,
    running,
    suspended,
    trained,
    with_job,
)

from hatchery_api.contract import ExitCode
from hatchery_api.status import ProgressStatus
from hatchery_operator.domain.objects import rfc3339


def test_a_result_that_cannot_be_read_does_not_lose_the_artifact() -> None:
    subject = running()
    text = report(result={"quarantined": "many"})
    decided = decide(subject, pods=(ended(0, text),), **with_job(subject, end="Complete"))
    assert condition(decided) == ("True", "Completed")
    assert decided.status.artifact == artifact()


def test_columns_show_rounded_numbers_and_the_status_keeps_exact_ones() -> None:
    subject, _ = trained(REFERENCES)
    subject = after(subject, decide(subject, references=REFERENCES))
    subject = after(subject, decide(subject, references=REFERENCES, **with_job(subject, ready=1)))
    text = report(result={"perplexity": 90.20550417490631})
    decided = decide(subject, references=REFERENCES, pods=(ended(0, text),), **with_job(subject, end="Complete"))
    assert decided.status.display == {"perplexity": "90.21"}
    assert getattr(decided.status, "perplexity", None) == 90.20550417490631


def test_lost_pods_are_counted_as_disruptions_once_the_attempt_is_over() -> None:
    subject = running()
    evicted = pod(conditions=[{"type": "DisruptionTarget", "status": "True"}])
    drained = ended(ExitCode.INTERRUPTED, at="2026-03-01T11:00:00Z")
    peer_told_to_end = ended(ExitCode.INTERRUPTED, at="2026-03-01T12:00:01Z", index=1)
    pods = (evicted, drained, ended(0, report()), peer_told_to_end)
    decided = decide(subject, pods=pods, **with_job(subject, end="Complete"))
    assert decided.status.disruptions == 2
    assert decided.status.failures == 0


def test_a_lost_pod_is_counted_when_it_is_seen_and_never_again() -> None:
    subject = running()
    evicted = pod("code-build-a1-0-x", conditions=[{"type": "DisruptionTarget", "status": "True"}])
    for pods in ((evicted,), (evicted, pod("code-build-a1-0-y")), (evicted,)):
        decided = decide(subject, pods=pods, **with_job(subject, active=1))
        assert (decided.status.disruptions, decided.status.failures) == (1, 0)
        subject = after(subject, decided)
    decided = decide(subject, pods=(ended(0, report()),), **with_job(subject, end="Complete"))
    assert decided.status.disruptions == 1


def test_long_messages_are_cut_to_what_a_condition_takes() -> None:
    subject = pending()
    pods = (waiting("ErrImagePull", "x" * 9000),)
    assert len(message(decide(subject, pods=pods, **with_job(subject, active=1)))) == 4096


SHOWN = ProgressStatus(text="5/10 (50%)", percentage=50, updated_at=rfc3339(NOW))


def test_progress_that_a_replica_has_written_stays_as_it_is() -> None:
    subject = with_status(running(), progress=SHOWN)
    assert decide(subject, **with_job(subject, active=1, ready=1)).status == subject.status


def test_progress_starts_afresh_with_each_stage_and_attempt() -> None:
    subject = with_status(running(), progress=SHOWN)
    decided = decide(subject, **with_job(subject, end="Failed"))
    assert decided.status.progress is None


def test_transition_times_change_only_when_a_condition_turns() -> None:
    subject = run(suspend=True)
    subject = suspended(after(subject, decide(subject)), value=False)
    decided = decide(subject, now=later(100))
    times = {c.type: c.last_transition_time for c in decided.status.conditions}
    assert times["Succeeded"] == rfc3339(NOW)
    assert times["Progressing"] == rfc3339(later(100))
