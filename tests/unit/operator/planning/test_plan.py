"""What is done about a resource, case by case: the resource and what is observed, in; the plan, out."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from tests.support.operator.builders import (
    NOW,
    artifact,
    by_key,
    ended,
    finished,
    job,
    later,
    manifest,
    pod,
    report,
    run,
    waiting,
    with_status,
)

from hatchery_api.conditions import ConditionType, Reason, find_condition
from hatchery_api.contract import ExitCode
from hatchery_api.placement import Retry
from hatchery_api.resources.pretrain import Parallelism, PretrainRunSpec
from hatchery_api.status import HubRevision, InputRecord, ProgressStatus
from hatchery_operator.diagnosis.pending import YOUNG_SECONDS
from hatchery_operator.domain.diagnosis import Diagnosis
from hatchery_operator.domain.objects import JobSummary, Run, rfc3339
from hatchery_operator.domain.observed import Observed
from hatchery_operator.manifests.pod import INPUT_ANNOTATION
from hatchery_operator.planning.plan import plan
from hatchery_operator.planning.status import Plan
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


def kinds(decided: Plan) -> list[str]:
    return [child["kind"] for child in decided.creates]


def told(decided: Plan) -> str:
    """What the pods of the new Job are told."""
    annotations = decided.creates[-1]["spec"]["template"]["metadata"]["annotations"]
    return str(annotations["hatchery.dev/input"])


def test_a_new_run_counts_its_attempt_and_names_its_job_before_anything_exists() -> None:
    decided = decide(run())
    assert stage(decided) == ("Waiting", 1)
    assert decided.status.stages[0].job == "code-build-a1"
    assert decided.status.attempts == 1
    assert decided.status.start_time == rfc3339(NOW)
    assert kinds(decided) == ["Job"]
    assert said(decided) == ("Unknown", "Pending")


def test_the_same_objects_are_created_again_when_the_operator_died_before_it_could() -> None:
    subject = begun()
    decided = decide(subject)
    assert decided.status == subject.status
    assert kinds(decided) == ["Job"]
    assert decided.status.attempts == 1


def test_a_job_that_was_seen_is_never_created_again() -> None:
    subject = begun()
    decided = decide(subject, now=later(10), **with_job(subject, active=1))
    assert (stage(decided), decided.creates) == (("Pending", 1), ())
    assert said(decided) == ("Unknown", "Pending")
    assert said(decided, "Progressing") == ("True", "Pending")


@pytest.mark.parametrize("pods", [0, 1])
def test_a_job_that_has_just_been_created_costs_no_second_status(pods: int) -> None:
    subject = begun()
    decided = decide(subject, now=later(9), **with_job(subject, active=pods))
    assert (decided.status, decided.creates, decided.requeue_after) == (subject.status, (), 10)


def test_trouble_of_a_job_that_has_just_been_created_is_said_at_once() -> None:
    subject = begun()
    decided = decide(subject, pods=(waiting("ErrImagePull"),), **with_job(subject, active=1))
    assert (said(decided), stage(decided)) == (("Unknown", "ImagePullError"), ("Pending", 1))


def test_pods_that_run_make_a_run_running() -> None:
    subject = begun()
    decided = decide(subject, **with_job(subject, active=2, ready=2, pods=2))
    assert said(decided) == ("Unknown", "Running")
    assert "2 of 2 pods" in message(decided)
    assert decided.requeue_after is None


def test_a_run_whose_pods_have_ended_does_not_look_as_if_they_had_not_started() -> None:
    subject = running()
    ending = decide(subject, pods=(ended(0, report()),), **with_job(subject, active=1))
    assert (said(ending), stage(ending)) == (("Unknown", "Running"), ("Running", 1))
    assert "are ending" in message(ending)
    replaced = decide(subject, pods=(ended(1), pod(phase="Pending")), **with_job(subject, active=1))
    assert said(replaced) == ("Unknown", "PodFailed")


def test_nothing_is_written_when_nothing_changes() -> None:
    subject = running()
    decided = decide(subject, now=later(3600), **with_job(subject, active=1, ready=1))
    assert decided == Plan(subject.status)


def test_a_report_completes_the_run() -> None:
    subject = running()
    hub = HubRevision(repo="o/c", revision="f" * 40, url="u")
    text = report(hub=hub, result={"quarantined": 3, "from_the_future": 1})
    decided = decide(subject, now=later(60), pods=(ended(0, text),), **with_job(subject, end="Complete"))
    status = decided.status
    assert said(decided) == ("True", "Completed")
    assert (status.artifact, status.hub) == (artifact(), hub)
    assert getattr(status, "quarantined", None) == 3
    assert status.completion_time == rfc3339(later(60))
    assert (status.current_stage, status.failures) == (None, 0)
    assert status.progress
    assert (status.progress.text, status.progress.percentage) == ("done", 100)
    assert [note.reason for note in decided.notes] == ["Completed"]


def test_a_result_that_cannot_be_read_does_not_lose_the_artifact() -> None:
    subject = running()
    text = report(result={"quarantined": "many"})
    decided = decide(subject, pods=(ended(0, text),), **with_job(subject, end="Complete"))
    assert said(decided) == ("True", "Completed")
    assert decided.status.artifact == artifact()


def test_columns_show_rounded_numbers_and_the_status_keeps_exact_ones() -> None:
    subject, _ = trained(REFERENCES)
    subject = after(subject, decide(subject, references=REFERENCES))
    subject = after(subject, decide(subject, references=REFERENCES, **with_job(subject, ready=1)))
    text = report(result={"perplexity": 90.20550417490631})
    decided = decide(subject, references=REFERENCES, pods=(ended(0, text),), **with_job(subject, end="Complete"))
    assert decided.status.display == {"perplexity": "90.21"}
    assert getattr(decided.status, "perplexity", None) == 90.20550417490631


@pytest.mark.parametrize("pods", [(), (ended(0, "no report"),), (ended(0, report(artifact=None)),)])
def test_a_job_that_completes_without_a_report_is_tried_again(pods: tuple[Any, ...]) -> None:
    subject = running()
    decided = decide(subject, pods=pods, **with_job(subject, end="Complete"))
    assert said(decided) == ("Unknown", "Retrying")
    assert decided.status.failures == 1


def test_only_the_report_of_index_0_counts() -> None:
    subject = running()
    pods = (ended(0, report(), name="other", index=1),)
    assert said(decide(subject, pods=pods, **with_job(subject, end="Complete"))) == ("Unknown", "Retrying")


@pytest.mark.parametrize("code", [ExitCode.SPEC_ERROR, ExitCode.DATA_ERROR])
def test_an_error_no_attempt_can_mend_ends_the_run_at_once(code: ExitCode) -> None:
    subject = running()
    text = report(reason=Reason.EMPTY_CORPUS, message="no document is left", artifact=None)
    decided = decide(subject, pods=(ended(code, text),), **with_job(subject, end="Failed", reason="PodFailurePolicy"))
    assert said(decided) == ("False", "EmptyCorpus")
    assert message(decided) == "no document is left"
    assert decided.status.completion_time
    assert said(decided, "Degraded") == ("True", "EmptyCorpus")
    assert [(note.type, note.reason) for note in decided.notes] == [("Warning", "EmptyCorpus")]


def test_a_failure_that_may_pass_is_tried_again_after_the_backoff() -> None:
    subject = running()
    text = report(reason=Reason.HUB_UNAVAILABLE, message="the Hub is down", artifact=None)
    decided = decide(subject, pods=(ended(ExitCode.RETRY, text),), **with_job(subject, end="Failed"))
    assert said(decided) == ("Unknown", "Retrying")
    assert said(decided, "Degraded") == ("True", "HubUnavailable")
    assert "the Hub is down" in message(decided)
    assert decided.requeue_after == 30
    assert decided.status.stages[0].retry_at == rfc3339(later(30))
    assert decided.status.stages[0].failure == "HubUnavailable"
    assert decided.status.failures == 1


def test_a_failed_attempt_is_charged_once_however_often_it_is_looked_at() -> None:
    subject = running()
    seen = {"pods": (ended(1, "boom"),), **with_job(subject, end="Failed")}
    first = decide(subject, **seen)
    again = decide(after(subject, first), now=later(10), **seen)
    assert again.status == first.status
    assert again.requeue_after == 20
    assert again.creates == ()


def test_the_next_attempt_has_its_own_job_and_forgets_nothing() -> None:
    subject = running()
    seen = {"pods": (ended(1, "boom"),), **with_job(subject, end="Failed")}
    subject = after(subject, decide(subject, **seen))
    decided = decide(subject, now=later(30), **seen)
    assert stage(decided) == ("Waiting", 2)
    assert decided.status.stages[0].job == "code-build-a2"
    assert decided.status.stages[0].retry_at is None
    assert (decided.status.attempts, decided.status.failures) == (2, 1)
    assert decided.status.start_time == subject.status.start_time
    assert [note.reason for note in decided.notes] == ["AttemptStarted"]
    [job] = decided.creates
    told = json.loads(job["spec"]["template"]["metadata"]["annotations"][INPUT_ANNOTATION])
    assert (told["attempt"], told["earlierFailure"]) == (2, "AttemptFailed")


def test_a_first_attempt_is_told_by_its_job_and_needs_no_event() -> None:
    assert decide(run()).notes == ()


def test_an_input_that_no_pod_takes_ends_the_run_before_an_attempt_is_counted() -> None:
    def of(characters: int) -> Run:
        urls = [f"s3://{'x' * characters}/{number}" for number in range(256)]
        return run(sources=[{"name": "code", "files": {"urls": urls}}])

    assert kinds(decide(of(400))) == ["Job"]
    decided = decide(of(600))
    assert said(decided) == ("False", "InvalidSpec")
    message = find_condition(decided.status.conditions, ConditionType.SUCCEEDED)
    assert message
    assert re.match(r"the spec and its inputs are 1\d{5} bytes as JSON, 131072 are the most", message.message)
    assert (decided.creates, decided.status.attempts, stage(decided)) == ((), 0, ("Failed", 0))


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
    assert said(decided) == ("False", "AttemptFailed")
    assert "boom" in message(decided)
    assert "attempt 2 of 2" in message(decided)
    assert (decided.status.attempts, decided.status.failures) == (2, 2)


def test_a_job_deleted_by_hand_is_a_failed_attempt() -> None:
    for subject in (pending(), running()):
        decided = decide(subject)
        assert said(decided) == ("Unknown", "Retrying")
        assert "was deleted" in message(decided)
        assert (decided.status.failures, decided.creates) == (1, ())


def test_pods_that_outlive_their_deleted_job_are_waited_for_before_anything_else_begins() -> None:
    for subject in (begun(), running()):
        decided = decide(subject, pods=(pod("code-build-a1-0-x"), ended(1, name="code-build-a1-1-y")))
        assert "waits for the end of code-build-a1-0-x" in message(decided)
        assert (stage(decided), decided.status.failures, decided.creates) == (stage(Plan(subject.status)), 0, ())
        assert decided.requeue_after
    assert decide(running(), pods=(ended(143),)).status.failures == 1


def test_a_budget_that_is_lowered_after_the_last_failure_ends_the_run() -> None:
    subject = running()
    subject = after(subject, decide(subject, pods=(ended(1, "boom"),), **with_job(subject, end="Failed")))
    assert subject.spec
    subject = replace(subject, spec=subject.spec.model_copy(update={"retry": Retry(max_attempts=1)}))
    decided = decide(subject, now=later(3600))
    assert said(decided) == ("False", "AttemptFailed")
    assert "boom" in message(decided)
    assert (decided.status.attempts, decided.status.failures, decided.creates) == (1, 1, ())


def test_a_job_that_is_being_deleted_is_waited_for() -> None:
    subject = running()
    decided = decide(subject, **with_job(subject, active=1, ready=1, deleting=True))
    assert decided.status.failures == 0
    assert decided.creates == ()


@pytest.mark.parametrize("end", ["Complete", "Failed"])
def test_a_finished_run_never_starts_again_whatever_is_deleted(end: str) -> None:
    subject = running(run(retry={"maxAttempts": 1}))
    subject = after(subject, decide(subject, pods=(ended(0, report()),), **with_job(subject, end=end)))
    assert subject.status.completion_time
    for hours in (0, 1, 1000):
        decided = decide(subject, now=later(hours * 3600))
        assert decided == Plan(subject.status)


def test_a_finished_run_loses_its_children_after_its_time_and_stays() -> None:
    subject = running(run(ttlSecondsAfterFinished=60))
    subject = after(subject, decide(subject, pods=(ended(0, report()),), **with_job(subject, end="Complete")))
    jobs = {"jobs": {"code-build-a1": job(subject, end="Complete")}}
    early = decide(subject, now=later(59), **jobs)
    assert (early.deletes, early.requeue_after) == ((), 1)
    due = decide(subject, now=later(60), **jobs)
    assert [(child.kind, child.name) for child in due.deletes] == [
        ("Job", "code-build-a1"),
        ("Service", "code-build-a1"),
        ("NetworkPolicy", "code-build-a1"),
    ]
    assert due.deletes[0].uid == "uid-code-build-a1"
    assert decide(subject, now=later(99)) == Plan(subject.status)


def test_a_suspended_run_does_not_begin() -> None:
    decided = decide(run(suspend=True))
    assert said(decided) == ("Unknown", "Suspended")
    assert said(decided, "Suspended")[0] == "True"
    assert (decided.creates, decided.status.attempts, decided.status.start_time) == ((), 0, None)


def suspended(subject: Run, *, value: bool) -> Run:
    assert subject.spec
    return replace(subject, spec=subject.spec.model_copy(update={"suspend": value}))


def test_suspending_holds_the_job_and_resuming_goes_on_with_the_same_attempt() -> None:
    subject = suspended(running(), value=True)
    decided = decide(subject, **with_job(subject, active=1, ready=1))
    assert [(child.name, value) for child, value in decided.suspends] == [("code-build-a1", True)]
    assert (said(decided), stage(decided)) == (("Unknown", "Suspending"), ("Suspended", 1))
    assert said(decided, "Suspended")[0] == "False"

    ending = after(subject, decided)
    assert decide(ending, **with_job(ending, suspended=True, terminating=1)) == Plan(ending.status)
    decided = decide(ending, **with_job(ending, suspended=True))
    assert (said(decided), said(decided, "Suspended")[0]) == (("Unknown", "Suspended"), "True")
    assert [note.reason for note in decided.notes] == ["Suspended"]
    held = after(subject, decided)
    assert decide(held, **with_job(held, suspended=True)) == Plan(held.status)

    resumed = suspended(held, value=False)
    decided = decide(resumed, **with_job(resumed, suspended=True))
    assert [(child.name, value) for child, value in decided.suspends] == [("code-build-a1", False)]
    assert decided.status.attempts == 1


def test_a_job_deleted_while_suspended_is_not_charged() -> None:
    subject = suspended(running(), value=True)
    subject = after(subject, decide(subject, **with_job(subject, active=1)))
    assert decide(subject).status.failures == 0
    decided = decide(suspended(subject, value=False))
    assert (kinds(decided), decided.status.attempts, decided.status.failures) == (["Job"], 1, 0)


def test_suspending_between_attempts_keeps_the_next_one_waiting() -> None:
    subject = running()
    seen = {"pods": (ended(1, "boom"),), **with_job(subject, end="Failed")}
    subject = suspended(after(subject, decide(subject, **seen)), value=True)
    decided = decide(subject, now=later(3600), **seen)
    assert (said(decided), stage(decided), decided.creates) == (("Unknown", "Suspended"), ("Retrying", 1), ())
    decided = decide(suspended(after(subject, decided), value=False), now=later(7200), **seen)
    assert stage(decided) == ("Waiting", 2)


def test_a_queue_owns_the_suspension_of_its_jobs() -> None:
    subject = begun(run(placement={"queueName": "gpus"}))
    decided = decide(subject, **with_job(subject, suspended=True))
    assert said(decided) == ("Unknown", "Queued")
    assert decided.suspends == ()


def test_a_queue_that_takes_an_admission_back_is_said_and_charges_nothing() -> None:
    subject = running(run(placement={"queueName": "gpus"}))
    decided = decide(subject, **with_job(subject, suspended=True, pods=2))
    assert (said(decided), decided.suspends, decided.deletes) == (("Unknown", "Preempted"), (), ())
    assert "queue gpus took back" in message(decided)
    assert (decided.status.disruptions, decided.status.failures, decided.status.attempts) == (2, 0, 1)
    waiting = after(subject, decided)
    assert decide(waiting, **with_job(waiting, suspended=True, pods=2)) == Plan(waiting.status)
    decided = decide(waiting, **with_job(waiting, active=2, ready=2, pods=2))
    assert (said(decided), decided.status.disruptions) == (("Unknown", "Running"), 2)


def sized(subject: Run, nodes: int, processes: int | str = "auto") -> Run:
    assert isinstance(subject.spec, PretrainRunSpec)
    wanted = Parallelism.model_validate({"nodes": nodes, "processesPerNode": processes})
    return replace(subject, spec=subject.spec.model_copy(update={"parallelism": wanted}))


def training() -> Run:
    """A run whose second stage works in two pods."""
    subject = run("PretrainRun", "model", batch={"sequences": 8, "perDevice": 2})
    references = by_key(finished("CorpusBuild", "corpus"), finished("TokenizerBuild", "tokenizer"))
    subject = begun(subject, references=references)
    encoded = decide(subject, pods=(ended(0, report()),), **with_job(subject, end="Complete"))
    subject = begun(sized(after(subject, encoded), 2), references=references)
    return after(subject, decide(subject, **with_job(subject, active=2, ready=2, pods=2, size="2xauto")))


def test_another_size_ends_the_pods_and_goes_on_with_the_same_attempt_uncharged() -> None:
    subject = sized(training(), 1)
    decided = decide(subject, **with_job(subject, active=2, ready=2, pods=2, size="2xauto"))
    assert [(child.name, child.foreground) for child in decided.deletes] == [("model-train-a1", True)]
    assert said(decided) == ("Unknown", "Resizing")
    assert "1xauto" in message(decided)
    resizing = after(subject, decided)
    for end in (None, "Failed", "Complete"):
        seen = with_job(resizing, deleting=True, end=end, size="2xauto")
        assert decide(resizing, pods=(ended(ExitCode.INTERRUPTED),), **seen) == Plan(resizing.status)
    decided = decide(resizing)
    assert (decided.status.attempts, decided.status.failures, decided.status.disruptions) == (2, 0, 0)
    assert decided.status.stages[1].job == "model-train-a1"
    job_made = next(child for child in decided.creates if child["kind"] == "Job")
    assert (job_made["spec"]["completions"], job_made["metadata"]["annotations"]) == (
        1,
        {"hatchery.dev/size": "1xauto"},
    )


def test_a_size_taken_back_before_the_job_is_gone_goes_on_with_the_old_one() -> None:
    subject = sized(training(), 1)
    subject = after(subject, decide(subject, **with_job(subject, active=2, ready=2, pods=2, size="2xauto")))
    back = sized(subject, 2)
    assert said(decide(back, **with_job(back, deleting=True, size="2xauto"))) == ("Unknown", "Resizing")
    decided = decide(back, **with_job(back, active=2, ready=2, pods=2, size="2xauto"))
    assert (said(decided), decided.deletes) == (("Unknown", "Running"), ())
    job_made = next(child for child in decide(back).creates if child["kind"] == "Job")
    assert job_made["spec"]["completions"] == 2


def test_a_size_that_cannot_work_is_refused_and_the_job_left_alone() -> None:
    subject = sized(training(), 5)
    decided = decide(subject, **with_job(subject, active=2, ready=2, pods=2, size="2xauto"))
    assert (decided.deletes, said(decided), stage(decided, "train")) == ((), ("Unknown", "Running"), ("Running", 1))
    assert said(decided, "Degraded") == ("True", "InvalidSpec")
    degraded = find_condition(decided.status.conditions, "Degraded")
    assert degraded
    assert "spec.parallelism: 5 nodes" in degraded.message
    assert "model-train-a1 goes on with 2xauto" in degraded.message
    failed = after(subject, decide(subject, pods=(ended(1, "boom"),), **with_job(subject, end="Failed", size="2xauto")))
    waits = decide(failed, now=later(3600))
    assert (said(waits), waits.creates, waits.status.completion_time) == (("Unknown", "InvalidSpec"), (), None)
    assert stage(decide(sized(after(failed, waits), 4), now=later(3600)), "train") == ("Waiting", 2)


def test_a_job_of_an_operator_that_did_not_say_sizes_is_not_resized() -> None:
    subject = sized(training(), 1)
    assert decide(subject, **with_job(subject, active=2, ready=2, pods=2)).deletes == ()


def test_suspending_a_run_in_a_queue_removes_its_job_and_resuming_makes_it_again() -> None:
    subject = suspended(running(run(placement={"queueName": "gpus"})), value=True)
    decided = decide(subject, **with_job(subject, active=1, ready=1))
    assert decided.suspends == ()
    assert [(child.name, child.foreground) for child in decided.deletes] == [("code-build-a1", True)]
    assert said(decided) == ("Unknown", "Suspending")
    subject = after(subject, decided)
    for end in (None, "Failed", "Complete"):
        assert decide(subject, **with_job(subject, deleting=True, end=end)) == Plan(subject.status)
    subject = suspended(after(subject, decided), value=False)
    decided = decide(subject)
    assert (kinds(decided), decided.status.attempts, decided.status.failures) == (["Job"], 1, 0)


@pytest.mark.parametrize(
    ("pods", "reason", "words"),
    [
        ((waiting("ImagePullBackOff", "not found"),), "ImagePullError", "jobs:1"),
        ((waiting("CreateContainerConfigError", 'secret "s" not found'),), "MissingReference", "Secret s does not"),
        (
            (pod(phase="Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]),),
            "Unschedulable",
            "0/1 nodes",
        ),
        (
            (
                pod(
                    phase="Pending",
                    conditions=[
                        {
                            "type": "PodScheduled",
                            "status": "False",
                            "message": 'persistentvolumeclaim "hatchery" not found',
                        }
                    ],
                ),
            ),
            "MissingReference",
            "hatchery",
        ),
        ((ended(137, reason="OOMKilled"), pod(phase="Pending")), "OutOfMemory", "resources"),
    ],
)
def test_pods_that_do_not_start_say_why(pods: tuple[Any, ...], reason: str, words: str) -> None:
    subject = pending()
    decided = decide(subject, pods=pods, **with_job(subject, active=1))
    assert said(decided) == ("Unknown", reason)
    assert said(decided, "Degraded") == ("True", reason)
    assert words in message(decided)
    assert decided.requeue_after == 5
    assert [note.reason for note in decided.notes] == [reason]
    healed = decide(after(subject, decided), **with_job(subject, active=1, ready=1))
    assert (said(healed), said(healed, "Degraded")) == (("Unknown", "Running"), ("False", "UpToDate"))


def test_a_refused_child_is_said_and_tried_again() -> None:
    subject = begun()
    refusal = Diagnosis(Reason.POD_REFUSED, "exceeded quota")
    decided = decide(subject, refusal=refusal)
    assert said(decided) == ("Unknown", "PodRefused")
    assert message(decided) == "exceeded quota"
    assert kinds(decided) == ["Job"]
    assert decided.requeue_after == 10


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
    seen = with_job(subject, end="Failed", reason="BackoffLimitExceeded", message="it is over")
    decided = decide(subject, pods=pods, **seen)
    assert said(decided, "Degraded") == ("True", reason)
    assert words in message(decided)


def test_a_permanent_error_is_permanent_even_when_no_pod_is_left_to_say_so() -> None:
    subject = running()
    decided = decide(subject, **with_job(subject, end="Failed", reason="PodFailurePolicy", message="exit code 64"))
    assert said(decided) == ("False", "AttemptFailed")
    assert "exit code 64" in message(decided)


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


def test_a_spec_that_cannot_be_read_is_said_with_its_field_and_may_be_mended() -> None:
    from hatchery_operator.domain.objects import parse_run

    decided = decide(parse_run(manifest(retry={"maxAttempts": 0})))
    assert said(decided) == ("False", "InvalidSpec")
    assert "spec.retry.maxAttempts" in message(decided)
    assert decided.status.completion_time is None
    mended = replace(run(), status=decided.status, generation=2)
    assert stage(decide(mended)) == ("Waiting", 1)


def test_a_run_that_is_being_deleted_is_left_alone() -> None:
    subject = replace(run(), deleting=True)
    assert decide(subject) == Plan(subject.status)


def test_a_dependent_waits_and_says_for_what() -> None:
    decided = decide(run("PretrainRun", "model"), references=by_key(run("CorpusBuild", "corpus")))
    assert said(decided) == ("Unknown", "Waiting")
    assert "CorpusBuild corpus, which is not ready" in message(decided)
    assert "TokenizerBuild tokenizer, which does not exist" in message(decided)
    assert (decided.creates, decided.status.start_time, decided.requeue_after) == ((), None, None)
    assert said(decided, "Degraded") == ("False", "UpToDate")


def test_a_dependent_of_a_failed_run_stays_waiting_and_says_so() -> None:
    failed = after(r := running(run(name="corpus", retry={"maxAttempts": 1})), decide(r, **with_job(r, end="Failed")))
    decided = decide(run("TokenizerBuild", "tokenizer"), references=by_key(failed))
    assert said(decided) == ("Unknown", "Waiting")
    assert said(decided, "Degraded") == ("True", "ReferenceFailed")
    assert "delete it and create it again" in message(decided)


def test_a_dependent_starts_with_what_is_ready_and_records_it() -> None:
    references = by_key(finished("CorpusBuild", "corpus", "c1"), finished("TokenizerBuild", "tokenizer", "t1"))
    decided = decide(run("PretrainRun", "model"), references=references)
    assert [(record.role, record.digest) for record in decided.status.inputs] == [("corpus", "c1"), ("tokenizer", "t1")]
    assert stage(decided, "encode") == ("Waiting", 1)
    assert stage(decided, "train") == ("Waiting", 0)


def trained(references: dict[Any, Run], one: Run | None = None) -> tuple[Run, Plan]:
    """A PretrainRun whose encode stage is complete, and the plan that completed it."""
    subject = begun(one or run("PretrainRun", "model"), references=references)
    subject = after(subject, decide(subject, references=references, **with_job(subject, ready=1)))
    text = report(artifact=artifact("tokens"), result={"parameters": 7})
    decided = decide(subject, references=references, pods=(ended(0, text),), **with_job(subject, end="Complete"))
    return after(subject, decided), decided


REFERENCES = by_key(finished("CorpusBuild", "corpus", "c1"), finished("TokenizerBuild", "tokenizer", "t1"))


def test_the_next_stage_begins_when_the_first_is_complete() -> None:
    subject, decided = trained(REFERENCES)
    assert said(decided) == ("Unknown", "Pending")
    assert (decided.requeue_after, decided.status.current_stage, decided.status.artifact) == (0, "train", None)
    assert getattr(decided.status, "parameters", None) == 7
    decided = decide(subject, references=REFERENCES)
    assert stage(decided, "train") == ("Waiting", 1)
    assert decided.status.attempts == 2
    inputs = told(decided)
    assert '"role":"tokens"' in inputs
    assert "claim://hatchery/team/x/tokens" in inputs
    assert [record.role for record in decided.status.inputs] == ["corpus", "tokenizer"]


def test_training_waits_for_the_run_whose_weights_it_goes_on_from() -> None:
    later_one = run("PretrainRun", "model", model={"from": {"pretrainRef": {"name": "base"}}})
    subject, _ = trained(REFERENCES, later_one)
    decided = decide(subject, references=REFERENCES | by_key(run("PretrainRun", "base")))
    assert said(decided) == ("Unknown", "Waiting")
    assert "PretrainRun base, which is not ready" in message(decided)
    decided = decide(subject, references=REFERENCES | by_key(finished("PretrainRun", "base", "m1")))
    assert stage(decided, "train") == ("Waiting", 1)
    assert '"role":"model"' in told(decided)
    assert ("model", "m1") in [(record.role, record.digest) for record in decided.status.inputs]


def test_a_retry_uses_the_inputs_of_the_first_attempt_and_turns_stale() -> None:
    subject = begun(run("PretrainRun", "model"), references=REFERENCES)
    changed = by_key(finished("CorpusBuild", "corpus", "c2"), finished("TokenizerBuild", "tokenizer", "t1"))
    decided = decide(subject, references=changed)
    assert said(decided, "Stale") == ("True", "ReferenceChanged")
    assert "CorpusBuild corpus" in message(decided, "Stale")
    assert [record.digest for record in decided.status.inputs] == ["c1", "t1"]
    assert '"digest":"c1"' in told(decided)


def test_a_finished_run_turns_stale_but_does_not_run_again() -> None:
    record = InputRecord(role="corpus", kind="CorpusBuild", name="corpus", uri="claim://c/x", digest="c1")
    subject = with_status(finished("TokenizerBuild", "tokenizer"), inputs=[record])
    fresh = decide(subject, references=by_key(finished("CorpusBuild", "corpus", "c1")))
    assert said(fresh, "Stale") == ("False", "UpToDate")
    stale = decide(subject, references=by_key(finished("CorpusBuild", "corpus", "c2")))
    assert said(stale, "Stale") == ("True", "ReferenceChanged")
    assert (stale.creates, said(stale)) == ((), ("True", "Completed"))
    again = decide(after(subject, stale), now=later(60), references=by_key(finished("CorpusBuild", "corpus", "c2")))
    assert again.status == stale.status


def test_a_reference_that_is_gone_or_is_made_again_is_not_yet_a_change() -> None:
    record = InputRecord(role="corpus", kind="CorpusBuild", name="corpus", uri="claim://c/x", digest="c1")
    subject = with_status(finished("TokenizerBuild", "tokenizer"), inputs=[record])
    for references in ({}, by_key(run("CorpusBuild", "corpus"))):
        assert said(decide(subject, references=references), "Stale") == ("False", "UpToDate")


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


def test_a_gang_that_is_not_complete_says_what_the_others_wait_for() -> None:
    subject = pending()
    unschedulable = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "Insufficient cpu",
    }
    others = pod(phase="Pending", index=1, conditions=[unschedulable])
    decided = decide(subject, pods=(pod(), others), **with_job(subject, active=2, ready=1, pods=2))
    assert said(decided) == ("Unknown", "Unschedulable")
    assert "1 of 2 pods run; pod code-build-a1-0-x asks for" in message(decided)
    assert "Insufficient cpu" in message(decided)
    assert decided.requeue_after
    complete = decide(subject, pods=(), **with_job(subject, active=2, ready=2, pods=2))
    assert (said(complete), complete.requeue_after) == (("Unknown", "Running"), None)


def test_the_attempt_is_counted_in_the_sentence_not_below_the_lines_of_the_log() -> None:
    subject = running(run(retry={"maxAttempts": 1}))
    text = "Traceback (most recent call last):\n  File x\nValueError: no rows\nnoise"
    decided = decide(subject, pods=(ended(1, text),), **with_job(subject, end="Failed"))
    assert message(decided).splitlines()[0].endswith("exit code 1: ValueError: no rows (attempt 1 of 1)")
    assert message(decided).endswith("noise")


def test_a_job_ended_at_a_deadline_does_not_blame_the_pods_that_were_killed_for_it() -> None:
    subject = running(run(retry={"maxAttempts": 1}))
    seen = with_job(subject, end="Failed", reason="DeadlineExceeded", message="Job was active longer than specified")
    decided = decide(subject, pods=(ended(137),), **seen)
    assert said(decided) == ("False", "DeadlineExceeded")
