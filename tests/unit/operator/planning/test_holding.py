"""Suspended runs, queues and resizes."""

from dataclasses import replace

from tests.support.operator.builders import (
    by_key,
    ended,
    finished,
    later,
    report,
    run,
)
from tests.support.operator.plans import (
    after,
    begun,
    condition,
    created,
    decide,
    kinds,
    message,
    running,
    stage,
    suspended,
    with_job,
)

from hatchery_api.conditions import find_condition
from hatchery_api.contract import ExitCode
from hatchery_api.resources.pretrain.spec import Parallelism, PretrainRunSpec
from hatchery_operator.domain.objects import Run
from hatchery_operator.planning import Plan


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


def test_suspending_holds_the_job_and_resuming_goes_on_with_the_same_attempt() -> None:
    subject = suspended(running(), value=True)
    decided = decide(subject, **with_job(subject, active=1, ready=1))
    assert [(child.name, value) for child, value in decided.suspends] == [("code-build-a1", True)]
    assert (condition(decided), stage(decided)) == (("Unknown", "Suspending"), ("Suspended", 1))
    assert condition(decided, "Suspended")[0] == "False"

    ending = after(subject, decided)
    assert decide(ending, **with_job(ending, suspended=True, terminating=1)) == Plan(ending.status)
    decided = decide(ending, **with_job(ending, suspended=True))
    assert (condition(decided), condition(decided, "Suspended")[0]) == (("Unknown", "Suspended"), "True")
    assert [note.reason for note in decided.user_events] == ["Suspended"]
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
    observed = {"pods": (ended(1, "boom"),), **with_job(subject, end="Failed")}
    subject = suspended(after(subject, decide(subject, **observed)), value=True)
    decided = decide(subject, now=later(3600), **observed)
    assert (condition(decided), stage(decided), created(decided)) == (("Unknown", "Suspended"), ("Retrying", 1), ())
    decided = decide(suspended(after(subject, decided), value=False), now=later(7200), **observed)
    assert stage(decided) == ("Waiting", 2)


def test_a_queue_owns_the_suspension_of_its_jobs() -> None:
    subject = begun(run(placement={"queueName": "gpus"}))
    decided = decide(subject, **with_job(subject, suspended=True))
    assert condition(decided) == ("Unknown", "Queued")
    assert decided.suspends == ()


def test_a_queue_that_takes_an_admission_back_is_said_and_charges_nothing() -> None:
    subject = running(run(placement={"queueName": "gpus"}))
    decided = decide(subject, **with_job(subject, suspended=True, pods=2))
    assert (condition(decided), decided.suspends, decided.deletes) == (("Unknown", "Preempted"), (), ())
    assert "queue gpus preempted" in message(decided)
    assert (decided.status.disruptions, decided.status.failures, decided.status.attempts) == (2, 0, 1)
    waiting = after(subject, decided)
    assert decide(waiting, **with_job(waiting, suspended=True, pods=2)) == Plan(waiting.status)
    decided = decide(waiting, **with_job(waiting, active=2, ready=2, pods=2))
    assert (condition(decided), decided.status.disruptions) == (("Unknown", "Running"), 2)


def test_suspending_a_run_in_a_queue_removes_its_job_and_resuming_makes_it_again() -> None:
    subject = suspended(running(run(placement={"queueName": "gpus"})), value=True)
    decided = decide(subject, **with_job(subject, active=1, ready=1))
    assert decided.suspends == ()
    assert [(child.name, child.foreground) for child in decided.deletes] == [("code-build-a1", True)]
    assert condition(decided) == ("Unknown", "Suspending")
    subject = after(subject, decided)
    for end in (None, "Failed", "Complete"):
        assert decide(subject, **with_job(subject, deleting=True, end=end)) == Plan(subject.status)
    subject = suspended(after(subject, decided), value=False)
    decided = decide(subject)
    assert (kinds(decided), decided.status.attempts, decided.status.failures) == (["Job"], 1, 0)


def test_another_size_ends_the_pods_and_goes_on_with_the_same_attempt_uncharged() -> None:
    subject = sized(training(), 1)
    decided = decide(subject, **with_job(subject, active=2, ready=2, pods=2, size="2xauto"))
    assert [(child.name, child.foreground) for child in decided.deletes] == [("model-train-a1", True)]
    assert condition(decided) == ("Unknown", "Resizing")
    assert "1xauto" in message(decided)
    resizing = after(subject, decided)
    for end in (None, "Failed", "Complete"):
        observed = with_job(resizing, deleting=True, end=end, size="2xauto")
        assert decide(resizing, pods=(ended(ExitCode.INTERRUPTED),), **observed) == Plan(resizing.status)
    decided = decide(resizing)
    assert (decided.status.attempts, decided.status.failures, decided.status.disruptions) == (2, 0, 0)
    assert decided.status.stages[1].job == "model-train-a1"
    job_made = next(child for child in created(decided) if child["kind"] == "Job")
    assert (job_made["spec"]["completions"], job_made["metadata"]["annotations"]) == (
        1,
        {"hatchery.dev/size": "1xauto"},
    )


def test_a_size_taken_back_before_the_job_is_gone_goes_on_with_the_old_one() -> None:
    subject = sized(training(), 1)
    subject = after(subject, decide(subject, **with_job(subject, active=2, ready=2, pods=2, size="2xauto")))
    back = sized(subject, 2)
    assert condition(decide(back, **with_job(back, deleting=True, size="2xauto"))) == ("Unknown", "Resizing")
    decided = decide(back, **with_job(back, active=2, ready=2, pods=2, size="2xauto"))
    assert (condition(decided), decided.deletes) == (("Unknown", "Running"), ())
    job_made = next(child for child in created(decide(back)) if child["kind"] == "Job")
    assert job_made["spec"]["completions"] == 2


def test_a_size_that_cannot_work_is_refused_and_the_job_left_alone() -> None:
    subject = sized(training(), 5)
    decided = decide(subject, **with_job(subject, active=2, ready=2, pods=2, size="2xauto"))
    assert (decided.deletes, condition(decided), stage(decided, "train")) == (
        (),
        ("Unknown", "Running"),
        ("Running", 1),
    )
    assert condition(decided, "Degraded") == ("True", "InvalidSpec")
    degraded = find_condition(decided.status.conditions, "Degraded")
    assert degraded
    assert "spec.parallelism: 5 nodes" in degraded.message
    assert "model-train-a1 continues with 2xauto" in degraded.message
    failed = after(subject, decide(subject, pods=(ended(1, "boom"),), **with_job(subject, end="Failed", size="2xauto")))
    waits = decide(failed, now=later(3600))
    assert (condition(waits), created(waits), waits.status.completion_time) == (("Unknown", "InvalidSpec"), (), None)
    assert stage(decide(sized(after(failed, waits), 4), now=later(3600)), "train") == ("Waiting", 2)


def test_a_job_of_an_operator_that_did_not_say_sizes_is_not_resized() -> None:
    subject = sized(training(), 1)
    assert decide(subject, **with_job(subject, active=2, ready=2, pods=2)).deletes == ()
