"""The operator's vocabulary as plain data: resources, Jobs, diagnoses, labels, back-off. Pure: no I/O, no clock.

Every other package of the operator may import it; it imports only `hatchery_api`. It exports more names than other
packages, since all of them speak it. `backoff` is exported as a module: `from hatchery_operator.domain import backoff`.
"""

from hatchery_operator.domain import backoff
from hatchery_operator.domain.devices import MIG_PREFIX, device_count, is_device, is_device_slice
from hatchery_operator.domain.diagnosis import AttemptFailure, Diagnosis
from hatchery_operator.domain.labels import (
    ATTEMPT_LABEL,
    INPUT_ANNOTATION,
    ISOLATED_LABEL,
    JOB_INDEX_LABEL,
    JOB_NAME_LABEL,
    KIND_LABEL,
    MANAGED_BY_LABEL,
    MANAGER,
    NAME_LABEL,
    QUEUE_LABEL,
    SIZE_ANNOTATION,
    STAGE_LABEL,
    UID_LABEL,
)
from hatchery_operator.domain.objects import (
    HELD,
    JobSummary,
    Key,
    Manifest,
    Observed,
    Run,
    controller_uid,
    event_time,
    key_of,
    micro_time,
    newest_attempt,
    parse_run,
    parse_time,
    resource_version,
    rfc3339,
    stage_in_flight,
    summarize_job,
)
from hatchery_operator.domain.progress_route import AUDIENCE, CA_CONFIG_MAP, CA_KEY, status_path
from hatchery_operator.domain.spec_paths import RESOURCES, SpecPaths, claim_of

__all__ = [
    "ATTEMPT_LABEL",
    "AUDIENCE",
    "CA_CONFIG_MAP",
    "CA_KEY",
    "HELD",
    "INPUT_ANNOTATION",
    "ISOLATED_LABEL",
    "JOB_INDEX_LABEL",
    "JOB_NAME_LABEL",
    "KIND_LABEL",
    "MANAGED_BY_LABEL",
    "MANAGER",
    "MIG_PREFIX",
    "NAME_LABEL",
    "QUEUE_LABEL",
    "RESOURCES",
    "SIZE_ANNOTATION",
    "STAGE_LABEL",
    "UID_LABEL",
    "AttemptFailure",
    "Diagnosis",
    "JobSummary",
    "Key",
    "Manifest",
    "Observed",
    "Run",
    "SpecPaths",
    "backoff",
    "claim_of",
    "controller_uid",
    "device_count",
    "event_time",
    "is_device",
    "is_device_slice",
    "key_of",
    "micro_time",
    "newest_attempt",
    "parse_run",
    "parse_time",
    "resource_version",
    "rfc3339",
    "stage_in_flight",
    "status_path",
    "summarize_job",
]
