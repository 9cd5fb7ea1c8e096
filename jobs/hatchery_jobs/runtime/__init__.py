"""The runtime every stage runs in: context, errors, logs, progress, artifacts and durable files.

Any package of the jobs may import it. It imports no stage and neither torch nor transformers nor datasets.
"""

from hatchery_jobs.runtime.artifacts import (
    RECORD,
    Draft,
    link_file,
    local_path,
    open_draft,
    open_input,
    read_manifest,
    sha256_file,
    storage_errors,
    sync_file,
    sync_folder,
    write_atomically,
)
from hatchery_jobs.runtime.context import Context, Outcome
from hatchery_jobs.runtime.errors import DataError, Interrupted, JobError, RetryableError, SpecError, retry_delay
from hatchery_jobs.runtime.logs import bind, debug, guard_streams, log, redact, to_file
from hatchery_jobs.runtime.progress import REGISTRY, ProgressReporter, serve_metrics
from hatchery_jobs.runtime.run import main

__all__ = [
    "RECORD",
    "REGISTRY",
    "Context",
    "DataError",
    "Draft",
    "Interrupted",
    "JobError",
    "Outcome",
    "ProgressReporter",
    "RetryableError",
    "SpecError",
    "bind",
    "debug",
    "guard_streams",
    "link_file",
    "local_path",
    "log",
    "main",
    "open_draft",
    "open_input",
    "read_manifest",
    "redact",
    "retry_delay",
    "serve_metrics",
    "sha256_file",
    "storage_errors",
    "sync_file",
    "sync_folder",
    "to_file",
    "write_atomically",
]
