"""A run whose pods run and report nothing new: it may hang, which no exit code ever tells; pure."""

from dataclasses import dataclass

from hatchery_api.conditions import Reason
from hatchery_api.status import RunStatus
from hatchery_operator.domain.diagnosis import Diagnosis
from hatchery_operator.domain.objects import JobSummary, parse_time, rfc3339
from hatchery_operator.domain.observed import Observed


@dataclass(frozen=True)
class Stall:
    """Whether a run seems to hang."""

    problem: Diagnosis | None = None
    due_seconds: float | None = None
    """Seconds after which it will, if nothing is reported before."""

    @property
    def words(self) -> str:
        """What is added to the sentence about pods that run."""
        return f"; {self.problem.message}" if self.problem else ""


def stalled(status: RunStatus, seen: Observed, job: JobSummary, after_seconds: float) -> Stall:
    """Whether the last report is too old; pods that never report are not known to hang."""
    if not status.progress or not status.progress.updated_at:
        return Stall()
    reported = parse_time(status.progress.updated_at)
    # while nobody took reports none could arrive
    heard = max(reported, seen.listening_since or reported)
    silence = (seen.now - heard).total_seconds()
    if silence < after_seconds:
        return Stall(due_seconds=after_seconds - silence)
    where = f" at {status.progress.text}" if status.progress.text else ""
    look = f"kubectl -n {job.namespace} logs job/{job.name} --all-pods --tail=50"
    text = f"no progress reported since {rfc3339(reported)}{where}; see what the pods say: {look}"
    return Stall(Diagnosis(Reason.NO_PROGRESS, text))
