"""How an attempt ends, and what comes of it: the artifact, another attempt, or the end of the run; pure."""

from dataclasses import replace
from datetime import timedelta
from typing import Final

from hatchery_api.base import parse_duration
from hatchery_api.conditions import ConditionType, Reason, find_condition
from hatchery_api.contract import Report
from hatchery_operator.diagnosis import pods
from hatchery_operator.diagnosis.pending import failure_of
from hatchery_operator.domain.diagnosis import AttemptFailure
from hatchery_operator.domain.objects import JobSummary, rfc3339
from hatchery_operator.planning.context import StageContext
from hatchery_operator.planning.status import Decision

LONGEST_BACKOFF_SECONDS: Final = 600.0
"""Longest wait between two attempts."""


def ended(case: StageContext, job: JobSummary) -> Decision:
    """The step after the end of a Job."""
    return (
        _completed(case, job)
        if job.end == "Complete"
        else attempt_failed(case, failure_of(job, case.run, case.seen, case.settings))
    )


def _completed(case: StageContext, job: JobSummary) -> Decision:
    report = pods.success_report(case.seen.pods)
    if report is None:
        said = f"Job {job.name} left no report; the next attempt finds the artifact and reports it"
        return attempt_failed(case, AttemptFailure(Reason.ATTEMPT_FAILED, said))
    stage = case.stage.model_copy(
        update={"state": "Succeeded", "finished_at": case.now, "artifact": report.artifact, "retry_at": None}
    )
    is_last = case.stage.name == case.run.kind.stages[-1]
    return Decision(
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


def attempt_failed(case: StageContext, failure: AttemptFailure) -> Decision:
    """The step after a failure: another attempt after the back-off, or the end."""
    attempt, most = case.stage.attempt, case.spec.retry.max_attempts
    if failure.permanent or attempt >= most:
        return replace(_failed_for_good(case, failure), is_failure=True)
    wait = min(LONGEST_BACKOFF_SECONDS, parse_duration(case.spec.retry.backoff) * 2 ** (attempt - 1))
    retry_at = rfc3339(case.seen.now + timedelta(seconds=wait))
    stage = case.stage.model_copy(update={"state": "Retrying", "retry_at": retry_at, "failure": failure.reason.value})
    message = f"attempt {attempt} of {most} failed, the next one starts at {retry_at}: {failure.message}"
    return Decision(Reason.RETRYING, message, stage=stage, problem=failure, is_failure=True, requeue_after=wait)


def out_of_budget(case: StageContext) -> Decision:
    """The budget was lowered after the last failure."""
    said = find_condition(case.run.status.conditions, ConditionType.DEGRADED)
    known = said is not None and said.status == "True"
    reason, message = (Reason(said.reason), said.message) if said and known else (Reason.ATTEMPT_FAILED, "")
    return _failed_for_good(case, AttemptFailure(reason, message))


def _failed_for_good(case: StageContext, failure: AttemptFailure) -> Decision:
    attempt, most = case.stage.attempt, case.spec.retry.max_attempts
    suffix = "" if failure.permanent else f" (attempt {attempt} of {most})"
    stage = case.stage.model_copy(update={"state": "Failed", "finished_at": case.now, "retry_at": None})
    return Decision(failure.reason, failure.sentence_with(suffix), verdict="False", stage=stage, problem=failure)
