"""How an attempt ends and what follows: the artifact, another attempt, or the end of the run."""

from dataclasses import replace
from datetime import timedelta

from hatchery_api.base import parse_duration
from hatchery_api.conditions import ConditionType, Reason, find_condition
from hatchery_api.contract import Report
from hatchery_operator.domain import backoff
from hatchery_operator.domain.objects import AttemptFailure, JobSummary, rfc3339
from hatchery_operator.planning.context import Decision, StageContext


def completed(context: StageContext, job: JobSummary, report: Report | None) -> Decision:
    """The decision after a Job has completed; without its report the next attempt finds the artifact."""
    if report is None:
        message = f"Job {job.name} left no report; the next attempt finds the artifact and reports it"
        return attempt_failed(context, AttemptFailure(Reason.ATTEMPT_FAILED, message))
    update = {"state": "Succeeded", "finished_at": context.now, "artifact": report.artifact, "retry_at": None}
    stage = context.stage.model_copy(update=update)
    if stage.name != context.run.kind.stages[-1]:
        message = f"stage {stage.name} is complete"
        return Decision(Reason.PENDING, message, stage=stage, report=report, requeue_after=0.0)
    uri = report.artifact.uri if report.artifact else ""
    existed = " already existed" if report.cached else ""
    pushed = f", pushed to {report.hub.repo} at {report.hub.revision}" if report.hub else ""
    return Decision(Reason.COMPLETED, f"artifact {uri}{existed}{pushed}", verdict="True", stage=stage, report=report)


def attempt_failed(context: StageContext, failure: AttemptFailure) -> Decision:
    """The decision after a failure: another attempt after the back-off, or the end of the run."""
    attempt, most = context.stage.attempt, context.spec.retry.max_attempts
    if failure.permanent or attempt >= most:
        return replace(_failed_for_good(context, failure), is_failure=True)
    wait = backoff.between_attempts(parse_duration(context.spec.retry.backoff)).after_failures(attempt)
    retry_at = rfc3339(context.observed.now + timedelta(seconds=wait))
    update = {"state": "Retrying", "retry_at": retry_at, "failure": failure.reason.value}
    return Decision(
        Reason.RETRYING,
        f"attempt {attempt} of {most} failed, the next one starts at {retry_at}: {failure.message}",
        stage=context.stage.model_copy(update=update),
        diagnosis=failure,
        is_failure=True,
        requeue_after=wait,
    )


def out_of_budget(context: StageContext) -> Decision:
    """The end of a run whose attempts were lowered after the last failure."""
    degraded = find_condition(context.run.status.conditions, ConditionType.DEGRADED)
    if degraded and degraded.status == "True":
        return _failed_for_good(context, AttemptFailure(Reason(degraded.reason), degraded.message))
    return _failed_for_good(context, AttemptFailure(Reason.ATTEMPT_FAILED, ""))


def _failed_for_good(context: StageContext, failure: AttemptFailure) -> Decision:
    attempt, most = context.stage.attempt, context.spec.retry.max_attempts
    suffix = "" if failure.permanent else f" (attempt {attempt} of {most})"
    stage = context.stage.model_copy(update={"state": "Failed", "finished_at": context.now, "retry_at": None})
    return Decision(failure.reason, failure.sentence_with(suffix), verdict="False", stage=stage, diagnosis=failure)
