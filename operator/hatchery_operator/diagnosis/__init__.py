"""What is wrong with a run: from what Kubernetes reports to a reason, and a message that names the field to change.

Pure: no I/O, no clock. `planning` and `controller` may import it; it imports `hatchery_api` and `domain`.
"""

from hatchery_operator.diagnosis.admission import why_rejected
from hatchery_operator.diagnosis.pod_exit import (
    any_pending,
    disrupted_pods,
    success_report,
    unfinished_pods,
    why_failed,
    why_replaced,
)
from hatchery_operator.diagnosis.pod_startup import (
    is_young,
    needs_events,
    recheck_seconds,
    starting_message,
    startup_message,
    why_pending,
)
from hatchery_operator.diagnosis.stall import stalled

__all__ = [
    "any_pending",
    "disrupted_pods",
    "is_young",
    "needs_events",
    "recheck_seconds",
    "stalled",
    "starting_message",
    "startup_message",
    "success_report",
    "unfinished_pods",
    "why_failed",
    "why_pending",
    "why_rejected",
    "why_replaced",
]
