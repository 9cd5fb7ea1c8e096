"""A run whose pods run without reporting progress: it may hang, which no exit code reveals."""

from dataclasses import dataclass

from hatchery_api.conditions import Reason
from hatchery_api.status import RunStatus
from hatchery_operator.domain.objects import Diagnosis, JobSummary, Observed, parse_time, rfc3339


@dataclass(frozen=True)
class Stall:
    """Whether a run seems to hang."""

    diagnosis: Diagnosis | None = None
    due_seconds: float | None = None
    """Seconds after which it will seem to, unless progress arrives."""

    @property
    def suffix(self) -> str:
        """The suffix of the message about running pods."""
        return f"; {self.diagnosis.message}" if self.diagnosis else ""


def stalled(status: RunStatus, observed: Observed, job: JobSummary, after_seconds: float) -> Stall:
    """Whether the last report is too old; pods that never report are not judged."""
    if not status.progress or not status.progress.updated_at:
        return Stall()
    reported = parse_time(status.progress.updated_at)
    # no report can arrive while no operator accepts them
    heard = max(reported, observed.listening_since or reported)
    silence = (observed.now - heard).total_seconds()
    if silence < after_seconds:
        return Stall(due_seconds=after_seconds - silence)
    where = f" at {status.progress.text}" if status.progress.text else ""
    logs = f"kubectl -n {job.namespace} logs job/{job.name} --all-pods --tail=50"
    message = f"no progress reported since {rfc3339(reported)}{where}; read the pods' logs: {logs}"
    return Stall(Diagnosis(Reason.NO_PROGRESS, message))
