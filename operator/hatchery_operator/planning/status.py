"""From the decision about the current stage to the whole plan: status, conditions, events; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import ValidationError

from hatchery_api.conditions import Condition, ConditionType, Reason, find_condition, set_condition
from hatchery_api.contract import Report
from hatchery_api.status import DISRUPTED_PODS, InputRecord, ProgressStatus, RunStatus, StageStatus
from hatchery_operator.diagnosis import pods
from hatchery_operator.domain.diagnosis import Diagnosis
from hatchery_operator.domain.objects import Manifest, Run, rfc3339
from hatchery_operator.domain.observed import HELD, Observed
from hatchery_operator.planning.inputs import with_staleness

MESSAGE_CHARACTERS: Final = 4096
"""Longest message of a condition."""

Verdict = Literal["True", "False", "Unknown"]
"""Status of the Succeeded condition."""


@dataclass(frozen=True)
class Child:
    """Names an object that belongs to a run."""

    kind: str
    name: str
    uid: str | None = None
    foreground: bool = False
    """Whether it is to stay, when it is deleted, until its pods have ended."""


@dataclass(frozen=True)
class UserEvent:
    """An event to post."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Decision:
    """What is decided about the current stage."""

    reason: Reason
    message: str
    verdict: Verdict = "Unknown"
    stage: StageStatus | None = None
    """The stage as it is from now on; None when nothing changes."""
    problem: Diagnosis | None = None
    stalled: Diagnosis | None = None
    """Why a run that runs seems to hang."""
    creates: tuple[Manifest, ...] = ()
    deletes: tuple[Child, ...] = ()
    suspends: tuple[tuple[Child, bool], ...] = ()
    records: tuple[InputRecord, ...] = ()
    report: Report | None = None
    is_failure: bool = False
    preempted: int = 0
    """Pods that a queue has just ended."""
    requeue_after: float | None = None


@dataclass(frozen=True)
class Plan:
    """What to do about a resource: write the status, then the rest, in this order."""

    status: RunStatus
    creates: tuple[Manifest, ...] = ()
    suspends: tuple[tuple[Child, bool], ...] = ()
    deletes: tuple[Child, ...] = ()
    notes: tuple[UserEvent, ...] = ()
    """Events, posted only when the status was written."""
    requeue_after: float | None = None
    """Seconds after which to look again, if nothing happens before."""


def conclude(
    run: Run, seen: Observed, stage: StageStatus | None, step: Decision, previous: RunStatus | None = None
) -> Plan:
    """The plan for a decision; `previous` is the status as the API server has it."""
    status = _with_stage(run, seen, stage, step) if stage else run.status
    status = _with_conditions(run, status, seen, step)
    status = with_staleness(run, status, seen)
    return Plan(
        status=status,
        creates=step.creates,
        suspends=step.suspends,
        deletes=step.deletes,
        notes=_notes(previous or run.status, status, step),
        requeue_after=step.requeue_after,
    )


def _with_stage(run: Run, seen: Observed, old: StageStatus, step: Decision) -> RunStatus:
    status, new, now = run.status, step.stage or old, rfc3339(seen.now)
    lost = _newly_disrupted(seen, old, new)
    if lost:
        new = new.model_copy(update={"disrupted_pods": [*new.disrupted_pods, *lost][-DISRUPTED_PODS:]})
    stages = [new if stage.name == old.name else stage for stage in status.stages]
    is_done = step.verdict != "Unknown"
    update = {
        "observed_generation": run.generation,
        "stages": stages,
        "current_stage": None if is_done else _current(stages, new),
        "attempts": sum(stage.attempt for stage in stages),
        "failures": status.failures + step.is_failure,
        "disruptions": status.disruptions + len(lost) + step.preempted,
        "inputs": _merged(status.inputs, step.records, run),
        "start_time": status.start_time or (now if new.attempt else None),
        "completion_time": now if is_done else None,
        "progress": _progress(status.progress, seen, old, new, step),
    }
    return _with_report(run, status.model_copy(update=update), step)


def _newly_disrupted(seen: Observed, old: StageStatus, new: StageStatus) -> list[str]:
    """Pods that were lost since the last look; those that the operator itself let go of are none."""
    if old.job != new.job or HELD & {old.state, new.state}:
        return []
    return [name for name in pods.disrupted(seen.pods) if name not in new.disrupted_pods]


def _current(stages: Sequence[StageStatus], new: StageStatus) -> str:
    return next((stage.name for stage in stages if stage.state != "Succeeded"), new.name)


def _merged(known: Sequence[InputRecord], records: Sequence[InputRecord], run: Run) -> list[InputRecord]:
    """Inputs from other resources; the run's own earlier stages are in `stages`."""
    roles = {record.role for record in known}
    own = (run.kind.kind, run.name)
    return [*known, *(r for r in records if r.role not in roles and (r.kind, r.name) != own)]


def _progress(
    before: ProgressStatus | None, seen: Observed, old: StageStatus, new: StageStatus, step: Decision
) -> ProgressStatus | None:
    if step.verdict == "True":
        done = {"text": "done", "percentage": 100, "eta": None, "updated_at": rfc3339(seen.now)}
        return (before or ProgressStatus()).model_copy(update=done)
    if old.job != new.job or new.state in ("Succeeded", "Retrying"):
        return None
    return before  # what pods report is written by the replica that gets it


def _with_report(run: Run, status: RunStatus, step: Decision) -> RunStatus:
    report = step.report
    if report is None:
        return status
    update = _result(run, report)
    if step.verdict == "True":
        update |= {"artifact": report.artifact, "hub": report.hub}
    return status.model_copy(update=update)


def _result(run: Run, report: Report) -> dict[str, object]:
    """The fields of the report's result that are set; a newer job may report what this operator cannot read."""
    try:
        result = run.kind.result.model_validate(report.result)
    except ValidationError:
        return {}
    return {name: getattr(result, name) for name in result.model_fields_set} | {
        "display": run.status.display | result.rounded()
    }


def _with_conditions(run: Run, status: RunStatus, seen: Observed, step: Decision) -> RunStatus:
    is_working = step.stage is not None and step.stage.state in ("Waiting", "Pending", "Running", "Resizing")
    is_suspended = step.reason == Reason.SUSPENDED
    problem = step.problem or seen.outdated
    values: tuple[tuple[ConditionType, Verdict, Reason, str], ...] = (
        (ConditionType.SUCCEEDED, step.verdict, step.reason, step.message),
        (ConditionType.PROGRESSING, _truth(is_working), step.reason, ""),
        (ConditionType.SUSPENDED, _truth(is_suspended), step.reason, ""),
        (
            ConditionType.DEGRADED,
            _truth(problem is not None),
            problem.reason if problem else Reason.UP_TO_DATE,
            problem.message if problem else "",
        ),
    )
    if step.stalled or find_condition(status.conditions, ConditionType.STALLED):
        why = step.stalled or Diagnosis(step.reason, "")
        values = (*values, (ConditionType.STALLED, _truth(step.stalled is not None), why.reason, why.message))
    conditions = list(status.conditions)
    for kind, truth, reason, message in values:
        condition = Condition(
            type=kind,
            status=truth,
            reason=reason,
            message=_shortened(message),
            last_transition_time=rfc3339(seen.now),
            observed_generation=run.generation,
        )
        conditions = set_condition(conditions, condition)
    return status.model_copy(update={"conditions": conditions, "observed_generation": run.generation})


def _truth(value: bool) -> Verdict:
    return "True" if value else "False"


def _shortened(message: str) -> str:
    return message if len(message) <= MESSAGE_CHARACTERS else message[: MESSAGE_CHARACTERS - 2] + " …"


def _notes(before: RunStatus, after: RunStatus, step: Decision) -> tuple[UserEvent, ...]:
    """Events for what has changed, few and each with its own reason."""
    notes: list[UserEvent] = []
    if step.stage and step.stage.attempt > 1 and after.attempts > before.attempts:
        notes.append(UserEvent("Normal", "AttemptStarted", f"stage {step.stage.name}, attempt {step.stage.attempt}"))
    if step.report and step.stage and step.verdict == "Unknown":
        notes.append(UserEvent("Normal", "StageCompleted", f"stage {step.stage.name}"))
    if _turned(before, after, ConditionType.SUCCEEDED, "True"):
        notes.append(UserEvent("Normal", step.reason, step.message))
    elif _turned(before, after, ConditionType.SUCCEEDED, "False"):
        notes.append(UserEvent("Warning", step.reason, step.message))
    elif step.problem and _turned(before, after, ConditionType.DEGRADED, "True"):
        notes.append(UserEvent("Warning", step.problem.reason, step.message))
    if step.stalled and _turned(before, after, ConditionType.STALLED, "True"):
        notes.append(UserEvent("Warning", step.stalled.reason, step.stalled.message))
    if _turned(before, after, ConditionType.SUSPENDED, "True"):
        notes.append(UserEvent("Normal", "Suspended", "spec.suspend is true"))
    return tuple(notes)


def _turned(before: RunStatus, after: RunStatus, kind: ConditionType, status: Verdict) -> bool:
    """Whether a condition has this status now and had another one, or another reason, before."""
    old, new = find_condition(before.conditions, kind), find_condition(after.conditions, kind)
    if new is None or new.status != status:
        return False
    return old is None or old.status != status or (old.reason != new.reason and kind != ConditionType.SUSPENDED)
