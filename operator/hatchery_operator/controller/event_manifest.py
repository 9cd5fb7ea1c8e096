"""The event that tells users what happened to a resource; pure."""

from datetime import datetime
from typing import Final
from uuid import uuid4

from hatchery_api.base import API_VERSION
from hatchery_operator.domain import MANAGER, Manifest, Run, rfc3339
from hatchery_operator.planning import UserEvent

EVENT_CHARACTERS: Final = 1024
"""Longest note the API server takes."""


def event_manifest(run: Run, note: UserEvent, now: datetime) -> Manifest:
    """The event of a note, under a name of its own."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{run.name}.{uuid4().hex[:16]}", "namespace": run.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": run.kind.kind,
            "namespace": run.namespace,
            "name": run.name,
            "uid": run.uid,
        },
        "type": note.type,
        "reason": note.reason,
        "message": note.message[:EVENT_CHARACTERS],
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "firstTimestamp": rfc3339(now),
        "lastTimestamp": rfc3339(now),
        "count": 1,
    }
