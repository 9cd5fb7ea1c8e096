"""What to do about one resource, from the resource, the observed cluster and the settings.

The status is written before anything is created: an attempt is counted and its Job named before the Job exists, and an
end is recorded before the Job can be deleted. So no event on Jobs restarts a finished run, and no attempt starts twice.
"""

from dataclasses import replace
from typing import Final

from hatchery_api.conditions import ConditionType, Reason, find_condition
from hatchery_api.status import InputRecord, RunStatus, StageStatus
from hatchery_operator.diagnosis import (
    any_pending,
    disrupted_pods,
    is_young,
    recheck_seconds,
    stalled,
    starting_message,
    startup_message,
    success_report,
    unfinished_pods,
    why_failed,
    why_pending,
    why_replaced,
)
from hatchery_operator.domain import backoff
from hatchery_operator.domain.attempt import Attempt, input_problem, job_name
from hatchery_operator.domain.objects import (
    HELD,
    AttemptFailure,
    Diagnosis,
    JobSummary,
    Observed,
    Run,
    parse_time,
    stage_in_flight,
)
from hatchery_operator.planning import holding
from hatchery_operator.planning.context import ChildRef, Decision, StageContext
from hatchery_operator.planning.endings import attempt_failed, completed, out_of_budget
from hatchery_operator.planning.inputs import ResolvedInputs, resolve_inputs, with_staleness
from hatchery_operator.planning.status import Plan, conclude
from hatchery_operator.settings import Settings
from hatchery_operator.stages import STAGES, misfit

_NAMED_PODS: Final = 4
"""Pods that a message lists."""


def plan(run: Run, observed: Observed, settings: Settings) -> Plan:
    """The next status of a resource, and the children to create, suspend or delete."""
    if run.deleting:
        return Plan(run.status)
    if run.status.completion_time:
        return _finished(run, observed)
    if run.spec is None:
        return conclude(run, observed, Decision(Reason.INVALID_SPEC, run.invalid, verdict="False"))
    started = run if run.status.stages else replace(run, status=_initial_status(run))
    stage = next(stage for stage in started.status.stages if stage.state != "Succeeded")
    definition = next(definition for definition in STAGES[run.kind.kind] if definition.name == stage.name)
    context = StageContext(started, run.spec, observed, settings, definition, stage)
    decision = _decide(context)
    return conclude(
        started,
        observed,
        decision,
        stage=stage,
        disrupted=disrupted_pods(observed.pods),
        attempt=_attempt(context, decision.stage or stage, decision.inputs) if decision.creates else None,
        previous=run.status,
    )


def _initial_status(run: Run) -> RunStatus:
    return run.status.model_copy(update={"stages": [StageStatus(name=n, state="Waiting") for n in run.kind.stages]})


def _finished(run: Run, observed: Observed) -> Plan:
    """A finished run: its inputs may turn stale, and its children are deleted after `ttlSecondsAfterFinished`."""
    status = run.status.model_copy(update={"observed_generation": run.generation})
    unchanged = Plan(with_staleness(run, status, observed))
    ttl = run.spec.ttl_seconds_after_finished if run.spec else None
    if ttl is None or not observed.jobs or not run.status.completion_time:
        return unchanged
    wait = (parse_time(run.status.completion_time) - observed.now).total_seconds() + ttl
    if wait > 0:
        return replace(unchanged, requeue_after=wait)
    jobs = [ChildRef("Job", job.name, job.uid) for job in observed.jobs.values() if not job.deleting]
    others = [ChildRef(kind, job.name) for job in jobs for kind in ("Service", "NetworkPolicy")]
    return replace(unchanged, deletes=(*jobs, *others))


def _decide(context: StageContext) -> Decision:
    if stage_in_flight(context.run.status) is None:
        return _between_attempts(context)
    job = context.observed.jobs.get(context.stage.job or "")
    return _without_job(context) if job is None else _with_job(context, job)


def _between_attempts(context: StageContext) -> Decision:
    if context.spec.suspend:
        return Decision(Reason.SUSPENDED, "suspended before the next attempt; set spec.suspend to false to resume")
    if context.stage.attempt >= context.spec.retry.max_attempts:
        return out_of_budget(context)
    if message := _misfit(context):
        return _misfitting(context, message)
    if context.stage.retry_at:
        wait = (parse_time(context.stage.retry_at) - context.observed.now).total_seconds()
        if wait > 0:
            return _still_retrying(context, wait)
    inputs = _inputs(context)
    if inputs.missing:
        return Decision(Reason.WAITING, f"waiting for {'; '.join(inputs.missing)}", diagnosis=inputs.diagnosis)
    return _begin(context, inputs.records)


def _misfit(context: StageContext) -> str:
    """Why a stage of the run can never work with its devices; empty if all can."""
    return misfit(STAGES[context.run.kind.kind], context.spec, context.settings)


def _inputs(context: StageContext) -> ResolvedInputs:
    return resolve_inputs(context.run, context.definition.needs(context.spec), context.observed.references)


def _misfitting(context: StageContext, message: str) -> Decision:
    """A run that has begun may have been resized to this misfit, so it does not end and can be resized back."""
    if not context.stage.attempt:
        return Decision(Reason.INVALID_SPEC, message, verdict="False")
    diagnosis = Diagnosis(Reason.INVALID_SPEC, message)
    return Decision(Reason.INVALID_SPEC, message, stage=context.stage, diagnosis=diagnosis)


def _still_retrying(context: StageContext, wait: float) -> Decision:
    """The message of the failure stays until the next attempt."""
    conditions = context.run.status.conditions
    succeeded = find_condition(conditions, ConditionType.SUCCEEDED)
    degraded = find_condition(conditions, ConditionType.DEGRADED)
    diagnosis = None
    if degraded and degraded.status == "True":
        diagnosis = Diagnosis(Reason(degraded.reason), degraded.message)
    message = succeeded.message if succeeded else ""
    return Decision(Reason.RETRYING, message, diagnosis=diagnosis, requeue_after=wait)


def _begin(context: StageContext, inputs: tuple[InputRecord, ...]) -> Decision:
    """Counts the next attempt and names its Job."""
    number = context.stage.attempt + 1
    update = {
        "state": "Waiting",
        "attempt": number,
        "job": job_name(context.run.name, context.stage.name, number),
        "started_at": context.stage.started_at or context.now,
        "retry_at": None,
        "disrupted_pods": [],
    }
    stage = context.stage.model_copy(update=update)
    settings = context.settings
    if message := input_problem(_attempt(context, stage, inputs), settings.claim_name, settings.hub_endpoint):
        failed = context.stage.model_copy(update={"state": "Failed", "finished_at": context.now})
        return Decision(Reason.INVALID_SPEC, message, verdict="False", stage=failed)
    return _create(replace(context, stage=stage), inputs)


def _attempt(context: StageContext, stage: StageStatus, inputs: tuple[InputRecord, ...]) -> Attempt:
    return Attempt(context.run, context.spec, stage.name, stage.attempt, context.shape, inputs, stage.failure)


def _create(context: StageContext, inputs: tuple[InputRecord, ...]) -> Decision:
    """Creates the objects of the attempt. The decision stays the same until the Job is observed."""
    job, queue = context.stage.job or "", context.spec.placement.queue_name
    refused_since = context.observed.refused_since or context.observed.now
    refused_seconds = (context.observed.now - refused_since).total_seconds()
    decision = Decision(
        Reason.PENDING,
        starting_message(job),
        stage=context.stage,
        creates=True,
        inputs=inputs,
        requeue_after=backoff.CREATE_CHILD.after_seconds(refused_seconds),
    )
    if refusal := context.observed.refusal:
        return replace(decision, reason=refusal.reason, message=refusal.message, diagnosis=refusal)
    if queue:
        return replace(decision, reason=Reason.QUEUED, message=holding.queue_message(job, queue))
    return decision


def _without_job(context: StageContext) -> Decision:
    """A Job that was observed before was deleted by someone else. One not yet observed, or held, is created.

    Both wait for the Job's pods to end: two gangs would write the same checkpoints.
    """
    stage = context.stage
    if pods := unfinished_pods(context.observed.pods):
        message = f"Job {stage.job} was deleted; waiting for its pods to terminate: {', '.join(pods[:_NAMED_PODS])}"
        return Decision(Reason.PENDING, message, stage=stage, requeue_after=backoff.TERMINATION_POLL_SECONDS)
    if stage.state in ("Pending", "Running"):
        message = f"Job {stage.job} was deleted before it finished"
        return attempt_failed(context, AttemptFailure(Reason.ATTEMPT_FAILED, message))
    if context.spec.suspend:
        return Decision(Reason.SUSPENDED, holding.SUSPENDED, stage=context.in_state("Suspended"))
    if message := _misfit(context):
        return _misfitting(context, message)
    return _create(replace(context, stage=context.in_state("Waiting")), _inputs(context).records)


def _with_job(context: StageContext, job: JobSummary) -> Decision:
    if job.deleting and context.stage.state in HELD:
        return holding.let_go(context, job)
    if job.end == "Complete":
        return completed(context, job, success_report(context.observed.pods))
    if job.end == "Failed":
        return attempt_failed(context, why_failed(job, context.observed.pods, context.paths))
    if context.spec.suspend:
        return holding.suspended(context, job)
    if holding.has_wrong_size(context, job):
        return _resize_if_possible(context, job)
    return _working(context, job)


def _resize_if_possible(context: StageContext, job: JobSummary) -> Decision:
    """Changes the size of the Job, unless the new size can never work: then the Job keeps its own."""
    message = _misfit(context)
    if not message:
        return holding.resize(context, job)
    diagnosis = Diagnosis(Reason.INVALID_SPEC, f"{message}; Job {job.name} continues with {job.size}")
    decision = _working(context, job)
    return replace(decision, message=f"{decision.message}; {diagnosis.message}", diagnosis=diagnosis)


def _working(context: StageContext, job: JobSummary) -> Decision:
    """A Job that should run."""
    if job.deleting:
        return Decision(Reason.PENDING, f"Job {job.name} is being deleted", stage=context.stage)
    if job.suspended and context.spec.placement.queue_name:
        return holding.queued(context, job)
    if job.ready < job.pods and (diagnosis := _why_not_running(context)):
        return _blocked(context, job, diagnosis)
    if job.ready:
        return _running(context, job)
    # between the end of the pods and the end of the Job no pod is ready and none is starting
    if context.stage.state == "Running" and not any_pending(context.observed.pods):
        return _ending(context, job)
    return _starting(context, job)


def _why_not_running(context: StageContext) -> Diagnosis | None:
    """Why not all pods run: they cannot start, they cannot be created, or they were lost."""
    observed, paths = context.observed, context.paths
    cannot_start = why_pending(observed.pods, observed.events, paths)
    return cannot_start or observed.refusal or why_replaced(observed.pods, paths)


def _running(context: StageContext, job: JobSummary) -> Decision:
    stall = stalled(context.run.status, context.observed, job, context.settings.stalled_seconds)
    is_complete = job.ready >= job.pods
    return Decision(
        Reason.RUNNING,
        f"{job.ready} of {job.pods} pods of Job {job.name} are running{stall.suffix}",
        stage=context.in_state("Running"),
        suspends=_resumed(job),
        stalled=stall.diagnosis,
        requeue_after=stall.due_seconds if is_complete else recheck_seconds(job, context.observed, explained=False),
    )


def _ending(context: StageContext, job: JobSummary) -> Decision:
    stall = stalled(context.run.status, context.observed, job, context.settings.stalled_seconds)
    return Decision(
        Reason.RUNNING,
        f"pods of Job {job.name} are terminating",
        stage=context.in_state("Running"),
        suspends=_resumed(job),
        stalled=stall.diagnosis,
        requeue_after=recheck_seconds(job, context.observed, explained=False),
    )


def _blocked(context: StageContext, job: JobSummary, diagnosis: Diagnosis) -> Decision:
    running = f"{job.ready} of {job.pods} pods are running; " if job.ready else ""
    return Decision(
        diagnosis.reason,
        running + diagnosis.message,
        stage=context.in_state("Pending"),
        diagnosis=diagnosis,
        suspends=_resumed(job),
        requeue_after=recheck_seconds(job, context.observed, explained=True),
    )


def _starting(context: StageContext, job: JobSummary) -> Decision:
    is_unchanged = context.stage.state == "Waiting" and is_young(job, context.observed)
    return Decision(
        Reason.PENDING,
        startup_message(job, context.observed),
        stage=context.stage if is_unchanged else context.in_state("Pending"),
        suspends=_resumed(job),
        requeue_after=recheck_seconds(job, context.observed, explained=False),
    )


def _resumed(job: JobSummary) -> tuple[tuple[ChildRef, bool], ...]:
    """Resumes a suspended Job."""
    return ((ChildRef("Job", job.name, job.uid), False),) if job.suspended else ()
