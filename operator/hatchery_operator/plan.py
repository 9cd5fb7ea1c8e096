"""What to do about one resource: a pure function of the resource, what is observed, and the settings.

Status is written before anything is created: an attempt is counted and its Job named before the Job exists, and an
end is recorded before the Job can be deleted. So nothing that happens to Jobs ever starts a finished run again, and no
attempt is started twice.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from hatchery_api.base import parse_duration
from hatchery_api.conditions import ConditionType, Reason, find_condition
from hatchery_api.contract import Report
from hatchery_api.placement import RunSpec
from hatchery_api.status import InputRecord, RunStatus, StageStatus
from hatchery_operator import inputs, pods
from hatchery_operator.objects import JobSummary, Run, parse_time, rfc3339
from hatchery_operator.observed import Observed, stage_in_flight
from hatchery_operator.outcome import Child, Plan, Step, conclude
from hatchery_operator.patience import next_try
from hatchery_operator.pending import begun, failure_of, is_young, patience, starting, trouble
from hatchery_operator.problem import Failure, Problem
from hatchery_operator.resources import misfit
from hatchery_operator.settings import Settings
from hatchery_operator.stages.registry import STAGES
from hatchery_operator.stall import stalled
from hatchery_operator.work import Work, job_name
from hatchery_operator.workload import input_problem, manifests

LONGEST_BACKOFF_SECONDS: Final = 600.0
"""Longest wait between two attempts."""

PODS_END_SECONDS: Final = 10.0
"""Time between two looks at pods that outlive their Job: nobody tells when they are gone."""

_NAMED_PODS: Final = 4


@dataclass(frozen=True)
class _Case:
    """What the functions below decide about."""

    run: Run
    spec: RunSpec
    seen: Observed
    settings: Settings
    stage: StageStatus

    @property
    def now(self) -> str:
        """The time, as the API writes it."""
        return rfc3339(self.seen.now)


def plan(run: Run, seen: Observed, settings: Settings) -> Plan:
    """What to do now."""
    if run.deleting:
        return Plan(run.status)
    if run.status.completion_time:
        return _finished(run, seen)
    if run.spec is None:
        return conclude(run, seen, None, Step(Reason.INVALID_SPEC, run.invalid, verdict="False"))
    status = run.status if run.status.stages else _with_stages(run)
    stage = next(s for s in status.stages if s.state != "Succeeded")
    step = _step(_Case(replace(run, status=status), run.spec, seen, settings, stage))
    return conclude(replace(run, status=status), seen, stage, step, previous=run.status)


def _with_stages(run: Run) -> RunStatus:
    return run.status.model_copy(update={"stages": [StageStatus(name=n, state="Waiting") for n in run.kind.stages]})


def _step(case: _Case) -> Step:
    if stage_in_flight(case.run.status) is None:
        return _between_attempts(case)
    job = case.seen.jobs.get(case.stage.job or "")
    if job is None:
        return _without_job(case)
    if job.end == "Complete":
        return _completed(case, job)
    if job.end == "Failed":
        return _attempt_failed(case, failure_of(job, case.run, case.seen, case.settings))
    if case.spec.suspend:
        return _suspended(case, job)
    return _working(case, job)


def _between_attempts(case: _Case) -> Step:
    if case.spec.suspend:
        return Step(Reason.SUSPENDED, "suspended before the next attempt; set spec.suspend to false to go on")
    if case.stage.attempt >= case.spec.retry.max_attempts:
        return _out_of_budget(case)
    if words := misfit(case.run.kind.kind, case.spec, case.settings):
        return Step(Reason.INVALID_SPEC, words, verdict="False")
    if case.stage.retry_at:
        wait = (parse_time(case.stage.retry_at) - case.seen.now).total_seconds()
        if wait > 0:
            return _still_retrying(case, wait)
    resolved = inputs.resolve(case.run, case.spec, case.stage.name, case.seen.references)
    if resolved.missing:
        return Step(Reason.WAITING, f"waits for {'; '.join(resolved.missing)}", problem=resolved.problem)
    return _begin(case, resolved.records)


def _still_retrying(case: _Case, wait: float) -> Step:
    """The words of the failure stay until the next attempt."""
    said = find_condition(case.run.status.conditions, ConditionType.SUCCEEDED)
    degraded = find_condition(case.run.status.conditions, ConditionType.DEGRADED)
    problem = Problem(Reason(degraded.reason), degraded.message) if degraded and degraded.status == "True" else None
    return Step(Reason.RETRYING, said.message if said else "", problem=problem, requeue_after=wait)


def _out_of_budget(case: _Case) -> Step:
    """The budget was lowered after the last failure."""
    said = find_condition(case.run.status.conditions, ConditionType.DEGRADED)
    known = said is not None and said.status == "True"
    reason, message = (Reason(said.reason), said.message) if said and known else (Reason.ATTEMPT_FAILED, "")
    return _failed_for_good(case, Failure(reason, message))


def _begin(case: _Case, records: tuple[InputRecord, ...]) -> Step:
    attempt = case.stage.attempt + 1
    stage = case.stage.model_copy(
        update={
            "state": "Waiting",
            "attempt": attempt,
            "job": job_name(case.run.name, case.stage.name, attempt),
            "started_at": case.stage.started_at or case.now,
            "retry_at": None,
        }
    )
    begun = replace(case, stage=stage)
    if said := input_problem(_work(begun, records), case.settings):
        failed = case.stage.model_copy(update={"state": "Failed", "finished_at": case.now})
        return Step(Reason.INVALID_SPEC, said, verdict="False", stage=failed)
    return _creating(begun, records)


def _work(case: _Case, records: tuple[InputRecord, ...]) -> Work:
    definition = next(s for s in STAGES[case.run.kind.kind] if s.name == case.stage.name)
    return Work(case.run, case.spec, case.stage.name, case.stage.attempt, definition.shape(case.spec), records)


def _creating(case: _Case, records: tuple[InputRecord, ...]) -> Step:
    """The intent: it is in the status before the objects are created, and stays until the Job is seen."""
    work = _work(case, records)
    problem = case.seen.refusal
    return Step(
        problem.reason if problem else Reason.PENDING,
        problem.message if problem else begun(work.name),
        stage=case.stage,
        problem=problem,
        creates=manifests(work, case.settings),
        records=records,
        requeue_after=next_try((case.seen.now - (case.seen.refused_since or case.seen.now)).total_seconds()),
    )


def _without_job(case: _Case) -> Step:
    """A Job that was seen and is gone was deleted by somebody; one that was not yet seen, or is held, is created.

    Neither before its pods have ended: two gangs would write the same checkpoints.
    """
    if working := pods.at_work(case.seen.pods):
        message = f"Job {case.stage.job} was deleted; waits for the end of {', '.join(working[:_NAMED_PODS])}"
        return Step(Reason.PENDING, message, stage=case.stage, requeue_after=PODS_END_SECONDS)
    if case.stage.state in ("Pending", "Running"):
        return _attempt_failed(
            case, Failure(Reason.ATTEMPT_FAILED, f"Job {case.stage.job} was deleted while it worked")
        )
    if case.spec.suspend:
        return Step(
            Reason.SUSPENDED, "suspended; set spec.suspend to false to go on", stage=_in_state(case, "Suspended")
        )
    resolved = inputs.resolve(case.run, case.spec, case.stage.name, case.seen.references)
    return _creating(replace(case, stage=_in_state(case, "Waiting")), resolved.records)


def _in_state(case: _Case, state: str) -> StageStatus:
    return case.stage.model_copy(update={"state": state})


def _suspended(case: _Case, job: JobSummary) -> Step:
    """A Job in a queue belongs to the queue, so it is removed; the same attempt goes on when the run does."""
    child = Child("Job", job.name, job.uid)
    queued = case.spec.placement.queue_name is not None
    return Step(
        Reason.SUSPENDED,
        "suspended; set spec.suspend to false to go on",
        stage=_in_state(case, "Suspended"),
        suspends=() if queued or job.suspended else ((child, True),),
        deletes=(child,) if queued and not job.deleting else (),
    )


def _working(case: _Case, job: JobSummary) -> Step:
    if job.deleting:
        return Step(Reason.PENDING, f"Job {job.name} is being deleted", stage=case.stage)
    if job.suspended and case.spec.placement.queue_name:
        message = f"Job {job.name} waits in queue {case.spec.placement.queue_name}"
        return Step(Reason.QUEUED, message, stage=_in_state(case, "Pending"))
    suspends = ((Child("Job", job.name, job.uid), False),) if job.suspended else ()
    problem = None if job.ready >= job.pods else trouble(case.run, case.seen, case.settings)
    # between the end of the pods and the end of the Job no pod is ready, yet none is to start
    is_ending = not job.ready and case.stage.state == "Running" and not pods.any_pending(case.seen.pods)
    if (job.ready or is_ending) and not problem:
        stall = stalled(case.run.status, case.seen, job, case.settings.stalled_seconds)
        return Step(
            Reason.RUNNING,
            f"pods of Job {job.name} are ending"
            if is_ending
            else f"{job.ready} of {job.pods} pods of Job {job.name} run{stall.words}",
            stage=_in_state(case, "Running"),
            suspends=suspends,
            stalled=stall.problem,
            requeue_after=stall.due_seconds if job.ready >= job.pods else patience(job, case.seen, explained=False),
        )
    is_new = case.stage.state == "Waiting" and is_young(job, case.seen) and not problem
    running = f"{job.ready} of {job.pods} pods run; " if job.ready else ""
    return Step(
        problem.reason if problem else Reason.PENDING,
        running + problem.message if problem else starting(job, case.seen),
        stage=case.stage if is_new else _in_state(case, "Pending"),
        problem=problem,
        suspends=suspends,
        requeue_after=patience(job, case.seen, explained=problem is not None),
    )


def _completed(case: _Case, job: JobSummary) -> Step:
    report = pods.success_report(case.seen.pods)
    if report is None:
        said = f"Job {job.name} left no report; the next attempt finds the artifact and reports it"
        return _attempt_failed(case, Failure(Reason.ATTEMPT_FAILED, said))
    stage = case.stage.model_copy(
        update={"state": "Succeeded", "finished_at": case.now, "artifact": report.artifact, "retry_at": None}
    )
    is_last = case.stage.name == case.run.kind.stages[-1]
    return Step(
        Reason.COMPLETED if is_last else Reason.PENDING,
        _completion_message(report) if is_last else f"stage {case.stage.name} is complete",
        verdict="True" if is_last else "Unknown",
        stage=stage,
        report=report,
        requeue_after=None if is_last else 0.0,
    )


def _completion_message(report: Report) -> str:
    where = report.artifact.uri if report.artifact else ""
    pushed = f", pushed to {report.hub.repo} at {report.hub.revision}" if report.hub else ""
    found = " was there already" if report.cached else ""
    return f"artifact {where}{found}{pushed}"


def _attempt_failed(case: _Case, failure: Failure) -> Step:
    attempt, most = case.stage.attempt, case.spec.retry.max_attempts
    if failure.permanent or attempt >= most:
        return replace(_failed_for_good(case, failure), is_failure=True)
    wait = min(LONGEST_BACKOFF_SECONDS, parse_duration(case.spec.retry.backoff) * 2 ** (attempt - 1))
    retry_at = rfc3339(case.seen.now + timedelta(seconds=wait))
    stage = case.stage.model_copy(update={"state": "Retrying", "retry_at": retry_at})
    message = f"attempt {attempt} of {most} failed, the next one starts at {retry_at}: {failure.message}"
    return Step(Reason.RETRYING, message, stage=stage, problem=failure, is_failure=True, requeue_after=wait)


def _failed_for_good(case: _Case, failure: Failure) -> Step:
    attempt, most = case.stage.attempt, case.spec.retry.max_attempts
    suffix = "" if failure.permanent else f" (attempt {attempt} of {most})"
    stage = case.stage.model_copy(update={"state": "Failed", "finished_at": case.now, "retry_at": None})
    return Step(failure.reason, failure.sentence_with(suffix), verdict="False", stage=stage, problem=failure)


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
