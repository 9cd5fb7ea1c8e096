"""The artifacts a stage reads: where they come from, whether they are ready, and whether they have changed since."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hatchery_api.conditions import Condition, ConditionType, Reason, find_condition, set_condition
from hatchery_api.status import Artifact, InputRecord, RunStatus
from hatchery_operator.domain.objects import Diagnosis, Key, Observed, Run, rfc3339
from hatchery_operator.domain.stage import Need


@dataclass(frozen=True)
class ResolvedInputs:
    """The inputs of a stage."""

    records: tuple[InputRecord, ...]
    """Those that are ready."""
    missing: tuple[str, ...] = ()
    """Those that are not ready, each with the cause."""
    diagnosis: Diagnosis | None = None
    """Set when one of them has failed."""


def resolve_inputs(run: Run, needs: Sequence[Need], references: Mapping[Key, Run]) -> ResolvedInputs:
    """The inputs of a stage. A recorded input is reused unchanged, even if its resource has another artifact by now."""
    records, missing, diagnosis = [], [], None
    for need in needs:
        referenced = references.get(Key(need.kind, run.namespace, need.name))
        record = _recorded(run, need) or _own(run, need) or _ready(need, referenced)
        if record:
            records.append(record)
            continue
        cause, failed = _why_not_ready(need, referenced)
        missing.append(cause)
        diagnosis = diagnosis or failed
    return ResolvedInputs(tuple(records), tuple(missing), diagnosis)


def with_staleness(run: Run, status: RunStatus, observed: Observed) -> RunStatus:
    """The status with its Stale condition, for a run that has used an input; a stale run never repeats by itself."""
    if not status.inputs:
        return status
    changed = [record for record in status.inputs if _has_changed(run, record, observed.references)]
    before = find_condition(status.conditions, ConditionType.STALE)
    if before is not None and (before.status == "True") == bool(changed):
        return status
    names = ", ".join(f"{record.kind} {record.name}" for record in changed)
    condition = Condition(
        type=ConditionType.STALE,
        status="True" if changed else "False",
        reason=Reason.REFERENCE_CHANGED if changed else Reason.UP_TO_DATE,
        message=f"{names} has changed since it was used; create a new {run.kind.kind} to use it" if changed else "",
        last_transition_time=rfc3339(observed.now),
        observed_generation=run.generation,
    )
    return status.model_copy(update={"conditions": set_condition(status.conditions, condition)})


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


def _why_not_ready(need: Need, referenced: Run | None) -> tuple[str, Diagnosis | None]:
    what = f"{need.kind} {need.name}"
    if referenced is None:
        return f"{what}, which does not exist", None
    succeeded = find_condition(referenced.status.conditions, ConditionType.SUCCEEDED)
    if succeeded and succeeded.status == "False":
        message = f"{what}, which has failed ({succeeded.reason}): delete it and create it again"
        return message, Diagnosis(Reason.REFERENCE_FAILED, message)
    return f"{what}, which is not ready", None


def _has_changed(run: Run, record: InputRecord, references: Mapping[Key, Run]) -> bool:
    """Whether the resource of an input has another artifact now; one that is gone or not ready has not changed."""
    artifact = _artifact(references.get(Key(record.kind, run.namespace, record.name)))
    return artifact is not None and artifact.digest != record.digest
