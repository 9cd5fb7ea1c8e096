"""Jobs that must not run as they are: those of a suspended run, in a queue, or of a size other than the spec's."""

from typing import Final

from hatchery_api.conditions import ConditionType, Reason, find_condition
from hatchery_operator.domain.objects import JobSummary
from hatchery_operator.planning.context import ChildRef, Decision, StageContext

SUSPENDED: Final = "suspended; set spec.suspend to false to resume"
"""Message of a suspended run."""


def let_go(context: StageContext, job: JobSummary) -> Decision:
    """The operator has deleted the Job and waits until its pods are gone; how they end is not charged."""
    if context.spec.suspend:
        return Decision(Reason.SUSPENDING, _terminating(job), stage=context.stage)
    if context.stage.state == "Resizing":
        return Decision(Reason.RESIZING, _resizing(job, context.shape.size), stage=context.stage)
    return Decision(Reason.PENDING, f"{_terminating(job)}; then the Job is created again", stage=context.stage)


def suspended(context: StageContext, job: JobSummary) -> Decision:
    """Suspends the Job, or deletes it when it is in a queue, which owns `suspend`; resuming continues the attempt."""
    child, stage = ChildRef("Job", job.name, job.uid, foreground=True), context.in_state("Suspended")
    if context.spec.placement.queue_name is not None:
        deletes = () if job.deleting else (child,)
        return Decision(Reason.SUSPENDING, _terminating(job), stage=stage, deletes=deletes)
    suspends = () if job.suspended else ((child, True),)
    if job.active or job.terminating:
        return Decision(Reason.SUSPENDING, _terminating(job), stage=stage, suspends=suspends)
    return Decision(Reason.SUSPENDED, SUSPENDED, stage=stage, suspends=suspends)


def queued(context: StageContext, job: JobSummary) -> Decision:
    """A queue holds the Job: it has not admitted it yet, or has preempted it."""
    queue = context.spec.placement.queue_name
    before = find_condition(context.run.status.conditions, ConditionType.SUCCEEDED)
    was_running = context.stage.state == "Running"
    if was_running or (before and before.reason == Reason.PREEMPTED):
        message = f"queue {queue} preempted Job {job.name}; the Job resumes once the queue admits it again"
        preempted = job.pods if was_running else 0
        return Decision(Reason.PREEMPTED, message, stage=context.in_state("Pending"), preempted=preempted)
    # a Job that was never admitted has nothing to lose, so its deletion is not charged
    stage = context.stage if context.stage.state == "Waiting" else context.in_state("Pending")
    return Decision(Reason.QUEUED, queue_message(job.name, queue), stage=stage)


def queue_message(job: str, queue: str | None) -> str:
    """Message of a Job that its queue has not admitted yet."""
    return f"Job {job} is waiting in queue {queue}"


def has_wrong_size(context: StageContext, job: JobSummary) -> bool:
    """Whether the spec wants other workers than the Job has; a Job of an older operator does not say how many."""
    return bool(job.size) and job.size != context.shape.size


def resize(context: StageContext, job: JobSummary) -> Decision:
    """Deletes the Job, so that the same attempt continues in another one."""
    child = ChildRef("Job", job.name, job.uid, foreground=True)
    message = _resizing(job, context.shape.size)
    deletes = () if job.deleting else (child,)
    return Decision(Reason.RESIZING, message, stage=context.in_state("Resizing"), deletes=deletes)


def _resizing(job: JobSummary, size: str) -> str:
    return f"{_terminating(job)}, to continue with {size} workers (nodes x processes) instead of {job.size}"


def _terminating(job: JobSummary) -> str:
    return f"pods of Job {job.name} are saving their state and terminating"
