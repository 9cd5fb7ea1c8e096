"""Jobs that must not go on as they are: of a suspended run, in a queue, of another size than wanted; pure."""

from typing import Final

from hatchery_api.conditions import ConditionType, Reason, find_condition
from hatchery_operator.domain.objects import JobSummary
from hatchery_operator.planning.context import StageContext
from hatchery_operator.planning.status import Child, Decision

SUSPENDED: Final = "suspended; set spec.suspend to false to go on"
"""What is said of a suspended run."""


def let_go(case: StageContext, job: JobSummary) -> Decision:
    """The operator itself has deleted the Job and waits until its pods are gone; how they end is not charged."""
    if case.spec.suspend:
        return Decision(Reason.SUSPENDING, _ending(job), stage=case.stage)
    if case.stage.state == "Resizing":
        return Decision(Reason.RESIZING, _resizing(job, case.shape.size), stage=case.stage)
    return Decision(Reason.PENDING, f"{_ending(job)}; then the Job is made again", stage=case.stage)


def suspended(case: StageContext, job: JobSummary) -> Decision:
    """A Job in a queue belongs to the queue, so it is removed; the same attempt goes on when the run does."""
    child = Child("Job", job.name, job.uid, foreground=True)
    queued, at_work = case.spec.placement.queue_name is not None, job.active or job.terminating
    return Decision(
        Reason.SUSPENDING if at_work or queued else Reason.SUSPENDED,
        _ending(job) if at_work or queued else SUSPENDED,
        stage=case.in_state("Suspended"),
        suspends=() if queued or job.suspended else ((child, True),),
        deletes=(child,) if queued and not job.deleting else (),
    )


def queued(case: StageContext, job: JobSummary) -> Decision:
    """A queue holds the Job: it was not admitted yet, or its admission was taken back."""
    queue, said = case.spec.placement.queue_name, find_condition(case.run.status.conditions, ConditionType.SUCCEEDED)
    is_new = case.stage.state == "Running"
    if is_new or (said and said.reason == Reason.PREEMPTED):
        message = f"queue {queue} took back the admission of Job {job.name}; admitted again, it goes on where it was"
        preempted = job.pods if is_new else 0
        return Decision(Reason.PREEMPTED, message, stage=case.in_state("Pending"), preempted=preempted)
    # as long as it was never admitted, nothing is lost with it
    stage = case.stage if case.stage.state == "Waiting" else case.in_state("Pending")
    return Decision(Reason.QUEUED, waits(job.name, queue), stage=stage)


def waits(job: str, queue: str | None) -> str:
    """What is said of a Job that was not admitted yet."""
    return f"Job {job} waits in queue {queue}"


def has_wrong_size(case: StageContext, job: JobSummary) -> bool:
    """Whether the spec wants other workers than the Job has; a Job of an older operator does not say how many."""
    return bool(job.size) and job.size != case.shape.size


def resize(case: StageContext, job: JobSummary) -> Decision:
    """Lets go of the Job, so that the same attempt goes on with another one."""
    child = Child("Job", job.name, job.uid, foreground=True)
    message = _resizing(job, case.shape.size)
    return Decision(Reason.RESIZING, message, stage=case.in_state("Resizing"), deletes=() if job.deleting else (child,))


def _resizing(job: JobSummary, size: str) -> str:
    return f"{_ending(job)} to go on with {size} workers (nodes x processes) instead of {job.size}"


def _ending(job: JobSummary) -> str:
    return f"pods of Job {job.name} save their state and end"
