"""Job manifests, reduced to what the operator needs."""

from collections.abc import Mapping
from typing import Any

from hatchery_api.kinds import BY_KIND
from hatchery_operator.domain.labels import KIND_LABEL, NAME_LABEL, SIZE_ANNOTATION, UID_LABEL
from hatchery_operator.domain.objects import JobSummary, Key, controller_uid, resource_version


def summarize_job(manifest: Mapping[str, Any]) -> JobSummary | None:
    """The summary of a Job; None for a Job that no resource of this operator controls."""
    metadata, status, spec = manifest["metadata"], manifest.get("status", {}), manifest.get("spec", {})
    labels, owner_uid = metadata.get("labels", {}), controller_uid(manifest)
    if owner_uid is None or owner_uid != labels.get(UID_LABEL) or labels.get(KIND_LABEL) not in BY_KIND:
        return None
    ends = [c for c in status.get("conditions", []) if c["type"] in ("Complete", "Failed") and c["status"] == "True"]
    end = ends[0] if ends else {}
    return JobSummary(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        owner=Key(labels[KIND_LABEL], metadata["namespace"], labels.get(NAME_LABEL, "")),
        owner_uid=owner_uid,
        version=resource_version(manifest),
        since=status.get("startTime") or metadata["creationTimestamp"],
        deleting="deletionTimestamp" in metadata,
        suspended=bool(spec.get("suspend")),
        active=status.get("active", 0),
        size=metadata.get("annotations", {}).get(SIZE_ANNOTATION, ""),
        ready=status.get("ready", 0),
        terminating=status.get("terminating", 0),
        pods=spec.get("completions") or 1,
        end=end.get("type"),
        reason=end.get("reason", ""),
        message=end.get("message", ""),
    )
