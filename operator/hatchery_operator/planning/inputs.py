"""The artifacts a stage reads: where they come from, whether they are ready, whether they have changed since; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from hatchery_api.conditions import Condition, ConditionType, Reason, find_condition, set_condition
from hatchery_api.placement import RunSpec
from hatchery_api.status import Artifact, InputRecord, RunStatus
from hatchery_operator.domain.diagnosis import Diagnosis
from hatchery_operator.domain.objects import Key, Run, rfc3339
from hatchery_operator.domain.observed import Observed
from hatchery_operator.stages.base import Need
from hatchery_operator.stages.registry import STAGES


@dataclass(frozen=True)
class Resolved:
    """The inputs of a stage."""

    records: tuple[InputRecord, ...]
    """Those that are ready."""
    missing: tuple[str, ...] = ()
    """Those that are not, in words."""
    problem: Diagnosis | None = None
    """Set when one of them has failed."""


def resolve(run: Run, spec: RunSpec, stage: str, references: Mapping[Key, Run]) -> Resolved:
    """The inputs of a stage. One that was used before is used again as it was, whatever its resource says by now."""
    definition = next(s for s in STAGES[run.kind.kind] if s.name == stage)
    records, missing, problem = [], [], None
    for need in definition.needs(spec):
        record = _recorded(run, need) or _own(run, need) or _ready(need, references.get(_key(run, need)))
        if record:
            records.append(record)
            continue
        words, failed = _why_not(need, references.get(_key(run, need)))
        missing.append(words)
        problem = problem or failed
    return Resolved(tuple(records), tuple(missing), problem)


def with_staleness(run: Run, status: RunStatus, seen: Observed) -> RunStatus:
    """The status with its Stale condition, for a run that has used something; nothing is ever repeated by itself."""
    if not status.inputs:
        return status
    changed = [record for record in status.inputs if _differs(record, seen.references.get(_record_key(run, record)))]
    before = find_condition(status.conditions, ConditionType.STALE)
    if before is not None and (before.status == "True") == bool(changed):
        return status
    condition = _stale(run, changed, seen.now)
    return status.model_copy(update={"conditions": set_condition(status.conditions, condition)})


def _stale(run: Run, changed: list[InputRecord], now: datetime) -> Condition:
    names = ", ".join(f"{record.kind} {record.name}" for record in changed)
    return Condition(
        type=ConditionType.STALE,
        status="True" if changed else "False",
        reason=Reason.REFERENCE_CHANGED if changed else Reason.UP_TO_DATE,
        message=f"{names} has changed since it was used; create a new {run.kind.kind} to use it" if changed else "",
        last_transition_time=rfc3339(now),
        observed_generation=run.generation,
    )


def _key(run: Run, need: Need) -> Key:
    return Key(need.kind, run.namespace, need.name)


def _record_key(run: Run, record: InputRecord) -> Key:
    return Key(record.kind, run.namespace, record.name)


def _recorded(run: Run, need: Need) -> InputRecord | None:
    return next((record for record in run.status.inputs if record.role == need.role), None)


def _own(run: Run, need: Need) -> InputRecord | None:
    """The artifact of an earlier stage."""
    if not need.is_own:
        return None
    artifact = next(stage.artifact for stage in run.status.stages if stage.name == need.name)
    return _record(need.role, run, artifact) if artifact else None


def _ready(need: Need, referenced: Run | None) -> InputRecord | None:
    artifact = _artifact(referenced)
    return _record(need.role, referenced, artifact) if referenced and artifact else None


def _record(role: str, source: Run, artifact: Artifact) -> InputRecord:
    return InputRecord(role=role, kind=source.kind.kind, name=source.name, uri=artifact.uri, digest=artifact.digest)


def _artifact(referenced: Run | None) -> Artifact | None:
    """The artifact of a resource that has succeeded."""
    if referenced is None:
        return None
    succeeded = find_condition(referenced.status.conditions, ConditionType.SUCCEEDED)
    return referenced.status.artifact if succeeded and succeeded.status == "True" else None


def _why_not(need: Need, referenced: Run | None) -> tuple[str, Diagnosis | None]:
    what = f"{need.kind} {need.name}"
    if referenced is None:
        return f"{what}, which does not exist", None
    succeeded = find_condition(referenced.status.conditions, ConditionType.SUCCEEDED)
    if succeeded and succeeded.status == "False":
        words = f"{what}, which has failed ({succeeded.reason}): delete it and create it again"
        return words, Diagnosis(Reason.REFERENCE_FAILED, words)
    return f"{what}, which is not ready", None


def _differs(record: InputRecord, referenced: Run | None) -> bool:
    artifact = _artifact(referenced)
    return artifact is not None and artifact.digest != record.digest
