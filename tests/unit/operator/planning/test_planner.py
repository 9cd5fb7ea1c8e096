"""What the planner decides about a resource, case by case."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from tests.support.operator.builders import (
    NOW,
    ended,
    job,
    later,
    manifest,
    pod,
    report,
    run,
    waiting,
)
from tests.support.operator.plans import (
    after,
    begun,
    condition,
    created,
    decide,
    kinds,
    message,
    pending,
    running,
    stage,
    with_job,
)

from hatchery_api.conditions import ConditionType, Reason, find_condition
from hatchery_operator.domain.labels import INPUT_ANNOTATION
from hatchery_operator.domain.objects import Diagnosis, Run, parse_run, rfc3339
from hatchery_operator.planning import Plan


def test_a_new_run_counts_its_attempt_and_names_its_job_before_anything_exists() -> None:
    decided = decide(run())
    assert stage(decided) == ("Waiting", 1)
    assert decided.status.stages[0].job == "code-build-a1"
    assert decided.status.attempts == 1
    assert decided.status.start_time == rfc3339(NOW)
    assert kinds(decided) == ["Job"]
    assert condition(decided) == ("Unknown", "Pending")


def test_the_same_objects_are_created_again_when_the_operator_died_before_it_could() -> None:
    subject = begun()
    decided = decide(subject)
    assert decided.status == subject.status
    assert kinds(decided) == ["Job"]
    assert decided.status.attempts == 1


def test_a_job_that_was_seen_is_never_created_again() -> None:
    subject = begun()
    decided = decide(subject, now=later(10), **with_job(subject, active=1))
    assert (stage(decided), created(decided)) == (("Pending", 1), ())
    assert condition(decided) == ("Unknown", "Pending")
    assert condition(decided, "Progressing") == ("True", "Pending")


@pytest.mark.parametrize("pods", [0, 1])
def test_a_job_that_has_just_been_created_costs_no_second_status(pods: int) -> None:
    subject = begun()
    decided = decide(subject, now=later(9), **with_job(subject, active=pods))
    assert (decided.status, created(decided), decided.requeue_after) == (subject.status, (), 10)


def test_trouble_of_a_job_that_has_just_been_created_is_said_at_once() -> None:
    subject = begun()
    decided = decide(subject, pods=(waiting("ErrImagePull"),), **with_job(subject, active=1))
    assert (condition(decided), stage(decided)) == (("Unknown", "ImagePullError"), ("Pending", 1))


def test_pods_that_run_make_a_run_running() -> None:
    subject = begun()
    decided = decide(subject, **with_job(subject, active=2, ready=2, pods=2))
    assert condition(decided) == ("Unknown", "Running")
    assert "2 of 2 pods" in message(decided)
    assert decided.requeue_after is None


def test_a_run_whose_pods_have_ended_does_not_look_as_if_they_had_not_started() -> None:
    subject = running()
    ending = decide(subject, pods=(ended(0, report()),), **with_job(subject, active=1))
    assert (condition(ending), stage(ending)) == (("Unknown", "Running"), ("Running", 1))
    assert "are terminating" in message(ending)
    replaced = decide(subject, pods=(ended(1), pod(phase="Pending")), **with_job(subject, active=1))
    assert condition(replaced) == ("Unknown", "PodFailed")


def test_nothing_is_written_when_nothing_changes() -> None:
    subject = running()
    decided = decide(subject, now=later(3600), **with_job(subject, active=1, ready=1))
    assert decided == Plan(subject.status)


def test_the_next_attempt_has_its_own_job_and_forgets_nothing() -> None:
    subject = running()
    observed = {"pods": (ended(1, "boom"),), **with_job(subject, end="Failed")}
    subject = after(subject, decide(subject, **observed))
    decided = decide(subject, now=later(30), **observed)
    assert stage(decided) == ("Waiting", 2)
    assert decided.status.stages[0].job == "code-build-a2"
    assert decided.status.stages[0].retry_at is None
    assert (decided.status.attempts, decided.status.failures) == (2, 1)
    assert decided.status.start_time == subject.status.start_time
    assert [note.reason for note in decided.user_events] == ["AttemptStarted"]
    [job] = created(decided)
    told = json.loads(job["spec"]["template"]["metadata"]["annotations"][INPUT_ANNOTATION])
    assert (told["attempt"], told["earlierFailure"]) == (2, "AttemptFailed")


def test_a_first_attempt_is_told_by_its_job_and_needs_no_event() -> None:
    assert decide(run()).user_events == ()


def test_an_input_that_no_pod_takes_ends_the_run_before_an_attempt_is_counted() -> None:
    def of(characters: int) -> Run:
        urls = [f"s3://{'x' * characters}/{number}" for number in range(256)]
        return run(sources=[{"name": "code", "files": {"urls": urls}}])

    assert kinds(decide(of(400))) == ["Job"]
    decided = decide(of(600))
    assert condition(decided) == ("False", "InvalidSpec")
    message = find_condition(decided.status.conditions, ConditionType.SUCCEEDED)
    assert message
    assert re.match(r"the spec and its inputs are 1\d{5} bytes of JSON, above the limit of 131072", message.message)
    assert (created(decided), decided.status.attempts, stage(decided)) == ((), 0, ("Failed", 0))


def test_pods_that_outlive_their_deleted_job_are_waited_for_before_anything_else_begins() -> None:
    for subject in (begun(), running()):
        decided = decide(subject, pods=(pod("code-build-a1-0-x"), ended(1, name="code-build-a1-1-y")))
        assert "waiting for its pods to terminate: code-build-a1-0-x" in message(decided)
        assert (stage(decided), decided.status.failures, created(decided)) == (stage(Plan(subject.status)), 0, ())
        assert decided.requeue_after
    assert decide(running(), pods=(ended(143),)).status.failures == 1


def test_a_job_that_is_being_deleted_is_waited_for() -> None:
    subject = running()
    decided = decide(subject, **with_job(subject, active=1, ready=1, deleting=True))
    assert decided.status.failures == 0
    assert created(decided) == ()


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
    assert condition(decided) == ("Unknown", "Suspended")
    assert condition(decided, "Suspended")[0] == "True"
    assert (created(decided), decided.status.attempts, decided.status.start_time) == ((), 0, None)


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
    assert condition(decided) == ("Unknown", reason)
    assert condition(decided, "Degraded") == ("True", reason)
    assert words in message(decided)
    assert decided.requeue_after == 5
    assert [note.reason for note in decided.user_events] == [reason]
    healed = decide(after(subject, decided), **with_job(subject, active=1, ready=1))
    assert (condition(healed), condition(healed, "Degraded")) == (("Unknown", "Running"), ("False", "UpToDate"))


def test_a_refused_child_is_said_and_tried_again() -> None:
    subject = begun()
    refusal = Diagnosis(Reason.POD_REFUSED, "exceeded quota")
    decided = decide(subject, refusal=refusal)
    assert condition(decided) == ("Unknown", "PodRefused")
    assert message(decided) == "exceeded quota"
    assert kinds(decided) == ["Job"]
    assert decided.requeue_after == 10


def test_a_spec_that_cannot_be_read_is_said_with_its_field_and_may_be_mended() -> None:

    decided = decide(parse_run(manifest(retry={"maxAttempts": 0})))
    assert condition(decided) == ("False", "InvalidSpec")
    assert "spec.retry.maxAttempts" in message(decided)
    assert decided.status.completion_time is None
    mended = replace(run(), status=decided.status, generation=2)
    assert stage(decide(mended)) == ("Waiting", 1)


def test_a_run_that_is_being_deleted_is_left_alone() -> None:
    subject = replace(run(), deleting=True)
    assert decide(subject) == Plan(subject.status)


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
    assert condition(decided) == ("Unknown", "Unschedulable")
    assert "1 of 2 pods are running; pod code-build-a1-0-x requests" in message(decided)
    assert "Insufficient cpu" in message(decided)
    assert decided.requeue_after
    complete = decide(subject, pods=(), **with_job(subject, active=2, ready=2, pods=2))
    assert (condition(complete), complete.requeue_after) == (("Unknown", "Running"), None)
