"""From the decision about the current stage to the whole plan: status, conditions, events."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import ValidationError

from hatchery_api.conditions import Condition, ConditionType, Reason, find_condition, set_condition
from hatchery_api.contract import Report
from hatchery_api.status import DISRUPTED_PODS, InputRecord, ProgressStatus, RunStatus, StageStatus
from hatchery_operator.domain.attempt import Attempt
from hatchery_operator.domain.objects import HELD, Diagnosis, Observed, Run, rfc3339
from hatchery_operator.planning.context import ChildRef, Decision, Verdict
from hatchery_operator.planning.inputs import with_staleness

MESSAGE_CHARACTERS: Final = 4096
"""Longest message of a condition."""


@dataclass(frozen=True)
class UserEvent:
    """An event to post."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """What to do about a resource: write the status first, then the rest."""

    status: RunStatus
    attempt: Attempt | None = None
    """The attempt whose objects are created, if they do not exist."""
    suspends: tuple[tuple[ChildRef, bool], ...] = ()
    deletes: tuple[ChildRef, ...] = ()
    user_events: tuple[UserEvent, ...] = ()
    """Events, posted only after the status was written."""
    requeue_after: float | None = None
    """Seconds until the next reconcile, unless an event arrives earlier."""


def conclude(
    run: Run,
    observed: Observed,
    decision: Decision,
    *,
    stage: StageStatus | None = None,
    disrupted: Sequence[str] = (),
    attempt: Attempt | None = None,
    previous: RunStatus | None = None,
) -> Plan:
    """The plan for a decision.

    Args:
        run: the resource, with a status that has all stages.
        observed: the cluster as the resource sees it.
        decision: the decision about the current stage.
        stage: the current stage before the decision; None for a spec that cannot be parsed.
        disrupted: names of the pods that were lost to eviction, preemption or drain.
        attempt: the attempt to create.
        previous: the status as the API server has it, if it differs from the resource's.
    """
    status = _with_stage(run, observed, stage, decision, disrupted) if stage else run.status
    status = _with_conditions(run, status, observed, decision)
    status = with_staleness(run, status, observed)
    return Plan(
        status=status,
        attempt=attempt,
        suspends=decision.suspends,
        deletes=decision.deletes,
        user_events=_user_events(previous or run.status, status, decision),
        requeue_after=decision.requeue_after,
    )


def _with_stage(
    run: Run, observed: Observed, old: StageStatus, decision: Decision, disrupted: Sequence[str]
) -> RunStatus:
    status, new, now = run.status, decision.stage or old, rfc3339(observed.now)
    lost = _newly_disrupted(disrupted, old, new)
    if lost:
        new = new.model_copy(update={"disrupted_pods": [*new.disrupted_pods, *lost][-DISRUPTED_PODS:]})
    stages = [new if stage.name == old.name else stage for stage in status.stages]
    is_done = decision.verdict != "Unknown"
    update = {
        "observed_generation": run.generation,
        "stages": stages,
        "current_stage": None if is_done else _current(stages, new),
        "attempts": sum(stage.attempt for stage in stages),
        "failures": status.failures + decision.is_failure,
        "disruptions": status.disruptions + len(lost) + decision.preempted,
        "inputs": _merged(status.inputs, decision.inputs, run),
        "start_time": status.start_time or (now if new.attempt else None),
        "completion_time": now if is_done else None,
        "progress": _progress(status.progress, observed, old, new, decision),
    }
    return _with_report(run, status.model_copy(update=update), decision)


def _newly_disrupted(disrupted: Sequence[str], old: StageStatus, new: StageStatus) -> list[str]:
    """Pods lost since the last reconcile; those that the operator itself ended do not count."""
    if old.job != new.job or HELD & {old.state, new.state}:
        return []
    return [name for name in disrupted if name not in new.disrupted_pods]


def _current(stages: Sequence[StageStatus], new: StageStatus) -> str:
    return next((stage.name for stage in stages if stage.state != "Succeeded"), new.name)


def _merged(known: Sequence[InputRecord], records: Sequence[InputRecord], run: Run) -> list[InputRecord]:
    """Inputs from other resources; the run's own earlier stages are in `stages`."""
    roles = {record.role for record in known}
    own = (run.kind.kind, run.name)
    return [*known, *(r for r in records if r.role not in roles and (r.kind, r.name) != own)]


def _progress(
    before: ProgressStatus | None, observed: Observed, old: StageStatus, new: StageStatus, decision: Decision
) -> ProgressStatus | None:
    if decision.verdict == "True":
        done = {"text": "done", "percentage": 100, "eta": None, "updated_at": rfc3339(observed.now)}
        return (before or ProgressStatus()).model_copy(update=done)
    if old.job != new.job or new.state in ("Succeeded", "Retrying"):
        return None
    return before  # progress is written by the replica that receives it


def _with_report(run: Run, status: RunStatus, decision: Decision) -> RunStatus:
    report = decision.report
    if report is None:
        return status
    update = _result(run, report)
    if decision.verdict == "True":
        update |= {"artifact": report.artifact, "hub": report.hub}
    return status.model_copy(update=update)


def _result(run: Run, report: Report) -> dict[str, object]:
    """The fields set in the report's result; empty when a newer job reports what this operator cannot parse."""
    try:
        result = run.kind.result.model_validate(report.result)
    except ValidationError:
        return {}
    return {name: getattr(result, name) for name in result.model_fields_set} | {
        "display": run.status.display | result.rounded()
    }


def _with_conditions(run: Run, status: RunStatus, observed: Observed, decision: Decision) -> RunStatus:
    is_working = decision.stage is not None and decision.stage.state in ("Waiting", "Pending", "Running", "Resizing")
    is_suspended = decision.reason == Reason.SUSPENDED
    diagnosis = decision.diagnosis or observed.outdated
    values: tuple[tuple[ConditionType, Verdict, Reason, str], ...] = (
        (ConditionType.SUCCEEDED, decision.verdict, decision.reason, decision.message),
        (ConditionType.PROGRESSING, _truth(is_working), decision.reason, ""),
        (ConditionType.SUSPENDED, _truth(is_suspended), decision.reason, ""),
        (
            ConditionType.DEGRADED,
            _truth(diagnosis is not None),
            diagnosis.reason if diagnosis else Reason.UP_TO_DATE,
            diagnosis.message if diagnosis else "",
        ),
    )
    if decision.stalled or find_condition(status.conditions, ConditionType.STALLED):
        why = decision.stalled or Diagnosis(decision.reason, "")
        values = (*values, (ConditionType.STALLED, _truth(decision.stalled is not None), why.reason, why.message))
    conditions = list(status.conditions)
    for kind, truth, reason, message in values:
        condition = Condition(
            type=kind,
            status=truth,
            reason=reason,
            message=_shortened(message),
            last_transition_time=rfc3339(observed.now),
            observed_generation=run.generation,
        )
        conditions = set_condition(conditions, condition)
    return status.model_copy(update={"conditions": conditions, "observed_generation": run.generation})


def _truth(value: bool) -> Verdict:
    return "True" if value else "False"


def _shortened(message: str) -> str:
    return message if len(message) <= MESSAGE_CHARACTERS else message[: MESSAGE_CHARACTERS - 2] + " …"


def _user_events(before: RunStatus, after: RunStatus, decision: Decision) -> tuple[UserEvent, ...]:
    """Events for what has changed: few, each with its own reason."""
    events: list[UserEvent] = []
    if decision.stage and decision.stage.attempt > 1 and after.attempts > before.attempts:
        events.append(
            UserEvent("Normal", "AttemptStarted", f"stage {decision.stage.name}, attempt {decision.stage.attempt}")
        )
    if decision.report and decision.stage and decision.verdict == "Unknown":
        events.append(UserEvent("Normal", "StageCompleted", f"stage {decision.stage.name}"))
    if _turned(before, after, ConditionType.SUCCEEDED, "True"):
        events.append(UserEvent("Normal", decision.reason, decision.message))
    elif _turned(before, after, ConditionType.SUCCEEDED, "False"):
        events.append(UserEvent("Warning", decision.reason, decision.message))
    elif decision.diagnosis and _turned(before, after, ConditionType.DEGRADED, "True"):
        events.append(UserEvent("Warning", decision.diagnosis.reason, decision.message))
    if decision.stalled and _turned(before, after, ConditionType.STALLED, "True"):
        events.append(UserEvent("Warning", decision.stalled.reason, decision.stalled.message))
    if _turned(before, after, ConditionType.SUSPENDED, "True"):
        events.append(UserEvent("Normal", "Suspended", "spec.suspend is true"))
    return tuple(events)


def _turned(before: RunStatus, after: RunStatus, kind: ConditionType, status: Verdict) -> bool:
    """Whether a condition has just taken this status, or another reason within it."""
    old, new = find_condition(before.conditions, kind), find_condition(after.conditions, kind)
    if new is None or new.status != status:
        return False
    return old is None or old.status != status or (old.reason != new.reason and kind != ConditionType.SUSPENDED)
