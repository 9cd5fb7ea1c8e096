"""What to do about one resource: a pure function of the resource, what is observed, and the settings.

Status is written before anything is created: an attempt is counted and its Job named before the Job exists, and an
end is recorded before the Job can be deleted. So nothing that happens to Jobs ever starts a finished run again, and no
attempt is started twice.
"""

from dataclasses import replace
from typing import Final

from hatchery_api.conditions import ConditionType, Reason, find_condition
from hatchery_api.status import InputRecord, RunStatus, StageStatus
from hatchery_operator.diagnosis import pods
from hatchery_operator.diagnosis.pending import begun, is_young, patience, starting, trouble
from hatchery_operator.diagnosis.stall import stalled
from hatchery_operator.domain.backoff import next_try
from hatchery_operator.domain.diagnosis import AttemptFailure, Diagnosis
from hatchery_operator.domain.objects import JobSummary, Run, parse_time
from hatchery_operator.domain.observed import HELD, Observed, stage_in_flight
from hatchery_operator.manifests.attempt import Attempt, job_name
from hatchery_operator.manifests.job import input_problem, manifests
from hatchery_operator.manifests.resources import misfit
from hatchery_operator.planning import holding, inputs
from hatchery_operator.planning.context import StageContext
from hatchery_operator.planning.endings import attempt_failed, ended, out_of_budget
from hatchery_operator.planning.status import Child, Decision, Plan, conclude
from hatchery_operator.settings import Settings

PODS_END_SECONDS: Final = 10.0
"""Time between two looks at pods that outlive their Job: nobody tells when they are gone."""

_NAMED_PODS: Final = 4


def plan(run: Run, seen: Observed, settings: Settings) -> Plan:
    """What to do now."""
    if run.deleting:
        return Plan(run.status)
    if run.status.completion_time:
        return _finished(run, seen)
    if run.spec is None:
        return conclude(run, seen, None, Decision(Reason.INVALID_SPEC, run.invalid, verdict="False"))
    status = run.status if run.status.stages else _with_stages(run)
    stage = next(s for s in status.stages if s.state != "Succeeded")
    step = _step(StageContext(replace(run, status=status), run.spec, seen, settings, stage))
    return conclude(replace(run, status=status), seen, stage, step, previous=run.status)


def _with_stages(run: Run) -> RunStatus:
    return run.status.model_copy(update={"stages": [StageStatus(name=n, state="Waiting") for n in run.kind.stages]})


def _step(case: StageContext) -> Decision:
    if stage_in_flight(case.run.status) is None:
        return _between_attempts(case)
    job = case.seen.jobs.get(case.stage.job or "")
    return _without_job(case) if job is None else _with_job(case, job)


def _with_job(case: StageContext, job: JobSummary) -> Decision:
    if job.deleting and case.stage.state in HELD:
        return holding.let_go(case, job)
    if job.end:
        return ended(case, job)
    if case.spec.suspend:
        return holding.suspended(case, job)
    if holding.has_wrong_size(case, job):
        return _resize(case, job)
    return _working(case, job)


def _resize(case: StageContext, job: JobSummary) -> Decision:
    """A size that cannot work leaves the Job alone, as it is."""
    words = misfit(case.run.kind.kind, case.spec, case.settings)
    if not words:
        return holding.resize(case, job)
    problem = Diagnosis(Reason.INVALID_SPEC, f"{words}; Job {job.name} goes on with {job.size}")
    step = _working(case, job)
    return replace(step, message=f"{step.message}; {problem.message}", problem=problem)


def _between_attempts(case: StageContext) -> Decision:
    if case.spec.suspend:
        return Decision(Reason.SUSPENDED, "suspended before the next attempt; set spec.suspend to false to go on")
    if case.stage.attempt >= case.spec.retry.max_attempts:
        return out_of_budget(case)
    if words := misfit(case.run.kind.kind, case.spec, case.settings):
        return _misfitting(case, words)
    if case.stage.retry_at:
        wait = (parse_time(case.stage.retry_at) - case.seen.now).total_seconds()
        if wait > 0:
            return _still_retrying(case, wait)
    resolved = inputs.resolve(case.run, case.spec, case.stage.name, case.seen.references)
    if resolved.missing:
        return Decision(Reason.WAITING, f"waits for {'; '.join(resolved.missing)}", problem=resolved.problem)
    return _begin(case, resolved.records)


def _misfitting(case: StageContext, words: str) -> Decision:
    """A run that has begun may have got there by a change of its size, and is left a way back."""
    if case.stage.attempt:
        return Decision(Reason.INVALID_SPEC, words, stage=case.stage, problem=Diagnosis(Reason.INVALID_SPEC, words))
    return Decision(Reason.INVALID_SPEC, words, verdict="False")


def _still_retrying(case: StageContext, wait: float) -> Decision:
    """The words of the failure stay until the next attempt."""
    said = find_condition(case.run.status.conditions, ConditionType.SUCCEEDED)
    degraded = find_condition(case.run.status.conditions, ConditionType.DEGRADED)
    problem = Diagnosis(Reason(degraded.reason), degraded.message) if degraded and degraded.status == "True" else None
    return Decision(Reason.RETRYING, said.message if said else "", problem=problem, requeue_after=wait)


def _begin(case: StageContext, records: tuple[InputRecord, ...]) -> Decision:
    attempt = case.stage.attempt + 1
    stage = case.stage.model_copy(
        update={
            "state": "Waiting",
            "attempt": attempt,
            "job": job_name(case.run.name, case.stage.name, attempt),
            "started_at": case.stage.started_at or case.now,
            "retry_at": None,
            "disrupted_pods": [],
        }
    )
    begun = replace(case, stage=stage)
    if said := input_problem(_work(begun, records), case.settings):
        failed = case.stage.model_copy(update={"state": "Failed", "finished_at": case.now})
        return Decision(Reason.INVALID_SPEC, said, verdict="False", stage=failed)
    return _creating(begun, records)


def _work(case: StageContext, records: tuple[InputRecord, ...]) -> Attempt:
    stage = case.stage
    return Attempt(case.run, case.spec, stage.name, stage.attempt, case.shape, records, stage.failure)


def _creating(case: StageContext, records: tuple[InputRecord, ...]) -> Decision:
    """The intent: it is in the status before the objects are created, and stays until the Job is seen."""
    work = _work(case, records)
    problem, queue = case.seen.refusal, case.spec.placement.queue_name
    words = holding.waits(work.name, queue) if queue else begun(work.name)
    return Decision(
        problem.reason if problem else Reason.QUEUED if queue else Reason.PENDING,
        problem.message if problem else words,
        stage=case.stage,
        problem=problem,
        creates=manifests(work, case.settings),
        records=records,
        requeue_after=next_try((case.seen.now - (case.seen.refused_since or case.seen.now)).total_seconds()),
    )


def _without_job(case: StageContext) -> Decision:
    """A Job that was seen and is gone was deleted by somebody; one that was not yet seen, or is held, is created.

    Neither before its pods have ended: two gangs would write the same checkpoints.
    """
    if working := pods.at_work(case.seen.pods):
        message = f"Job {case.stage.job} was deleted; waits for the end of {', '.join(working[:_NAMED_PODS])}"
        return Decision(Reason.PENDING, message, stage=case.stage, requeue_after=PODS_END_SECONDS)
    if case.stage.state in ("Pending", "Running"):
        return attempt_failed(
            case, AttemptFailure(Reason.ATTEMPT_FAILED, f"Job {case.stage.job} was deleted while it worked")
        )
    if case.spec.suspend:
        return Decision(Reason.SUSPENDED, holding.SUSPENDED, stage=case.in_state("Suspended"))
    if words := misfit(case.run.kind.kind, case.spec, case.settings):
        return _misfitting(case, words)
    resolved = inputs.resolve(case.run, case.spec, case.stage.name, case.seen.references)
    return _creating(replace(case, stage=case.in_state("Waiting")), resolved.records)


def _working(case: StageContext, job: JobSummary) -> Decision:
    if job.deleting:
        return Decision(Reason.PENDING, f"Job {job.name} is being deleted", stage=case.stage)
    if job.suspended and case.spec.placement.queue_name:
        return holding.queued(case, job)
    suspends = ((Child("Job", job.name, job.uid), False),) if job.suspended else ()
    problem = None if job.ready >= job.pods else trouble(case.run, case.seen, case.settings)
    # between the end of the pods and the end of the Job no pod is ready, yet none is to start
    is_ending = not job.ready and case.stage.state == "Running" and not pods.any_pending(case.seen.pods)
    if (job.ready or is_ending) and not problem:
        stall = stalled(case.run.status, case.seen, job, case.settings.stalled_seconds)
        return Decision(
            Reason.RUNNING,
            f"pods of Job {job.name} are ending"
            if is_ending
            else f"{job.ready} of {job.pods} pods of Job {job.name} run{stall.words}",
            stage=case.in_state("Running"),
            suspends=suspends,
            stalled=stall.problem,
            requeue_after=stall.due_seconds if job.ready >= job.pods else patience(job, case.seen, explained=False),
        )
    is_new = case.stage.state == "Waiting" and is_young(job, case.seen) and not problem
    running = f"{job.ready} of {job.pods} pods run; " if job.ready else ""
    return Decision(
        problem.reason if problem else Reason.PENDING,
        running + problem.message if problem else starting(job, case.seen),
        stage=case.stage if is_new else case.in_state("Pending"),
        problem=problem,
        suspends=suspends,
        requeue_after=patience(job, case.seen, explained=problem is not None),
    )


def _finished(run: Run, seen: Observed) -> Plan:
    """A finished run: only its inputs may turn stale and its children may go."""
    noticed = run.status.model_copy(update={"observed_generation": run.generation})
    quiet = Plan(inputs.with_staleness(run, noticed, seen))
    ttl = run.spec.ttl_seconds_after_finished if run.spec else None
    if ttl is None or not seen.jobs or not run.status.completion_time:
        return quiet
    wait = (parse_time(run.status.completion_time) - seen.now).total_seconds() + ttl
    if wait > 0:
        return replace(quiet, requeue_after=wait)
    jobs = [Child("Job", job.name, job.uid) for job in seen.jobs.values() if not job.deleting]
    others = [Child(kind, job.name) for job in jobs for kind in ("Service", "NetworkPolicy")]
    return replace(quiet, deletes=(*jobs, *others))
