"""Runs one stage: reads the JobInput, calls the stage function, pushes to the Hub, and reports the outcome."""

import json
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hatchery_api.base import API_VERSION
from hatchery_api.conditions import Reason
from hatchery_api.contract import METRICS_PORT, REPORT_PATH, ExitCode, JobInput, Report
from hatchery_api.kinds import BY_KIND
from hatchery_api.status import HubRevision
from hatchery_jobs.runtime.artifacts import write_atomically
from hatchery_jobs.runtime.context import Context, Outcome
from hatchery_jobs.runtime.errors import DataError, Interrupted, JobError, RetryableError, SpecError
from hatchery_jobs.runtime.logs import bind, log, redact
from hatchery_jobs.runtime.progress import ProgressReporter, serve_metrics

Push = Callable[..., HubRevision]
"""`hatchery_jobs.hub.push_folder`; passed in, because the Hub's package imports this one."""


def load_job(path: Path) -> JobInput[Any]:
    """Reads the pod's input.

    Raises:
        SpecError: its API version differs from this image's, or its spec is invalid.
    """
    data = json.loads(path.read_text())
    if data.get("apiVersion") != API_VERSION:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"{path}: the operator uses {data.get('apiVersion')}, this image {API_VERSION}; set spec.image to an image "
            "of the operator's version",
        )
    kind = BY_KIND[data["kind"]]
    try:
        return JobInput[kind.spec].model_validate(data)  # type: ignore[name-defined]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SpecError(Reason.INVALID_SPEC, f"{where}: {first['msg']}; change it in the {kind.kind}") from error


def run_stage(job: JobInput[Any], stop: threading.Event, scratch: Path, push: Push) -> Report:
    """Runs the stage, pushes its artifact and returns the report.

    Raises:
        JobError: the stage or the push failed.
    """
    started = time.monotonic()
    kind = BY_KIND[job.kind]
    module = import_module(f"hatchery_jobs.{kind.package}.{kind.job(job.stage).module}")
    stage: Callable[[Context[Any]], Outcome] = module.run
    context = Context(job=job, progress=ProgressReporter(job.stage), scratch=scratch, stop=stop)
    outcome = stage(context)
    first_pod = int(os.environ.get("HATCHERY_NODE_INDEX") or 0) == 0  # all pods of a gang return the same artifact
    report = Report(
        reason=Reason.COMPLETED,
        artifact=outcome.artifact,
        result=outcome.result.wire(),
        hub=_push(job, outcome, push) if first_pod else None,
        cached=outcome.cached,
        seconds=round(time.monotonic() - started, 3),
    )
    if first_pod:
        write_atomically(outcome.folder / "report.json", report.model_dump_json(by_alias=True, indent=1).encode())
    return report


def _push(job: JobInput[Any], outcome: Outcome, push: Push) -> HubRevision | None:
    stage = BY_KIND[job.kind].job(job.stage)
    if job.spec.hub is None or stage.repo_type is None:
        return None
    return push(
        outcome.folder,
        job.spec.hub,
        endpoint=job.hub.endpoint,
        repo_type=stage.repo_type,
        message=stage.commit_message or f"{job.kind} {job.namespace}/{job.name} {outcome.artifact.key}",
        token=os.environ.get("HF_TOKEN"),
    )


def failure(error: BaseException) -> tuple[Report, ExitCode]:
    """Report and exit code of an error; texts are redacted before they are cut, which could leave half a secret."""
    if isinstance(error, JobError):
        return Report(reason=error.reason, message=redact(error.message)), error.exit_code
    if isinstance(error, MemoryError):
        known: JobError = RetryableError(
            Reason.OUT_OF_MEMORY, "out of memory; raise spec.placement.resources.limits.memory or use smaller batches"
        )
    elif isinstance(error, UnicodeDecodeError):
        known = DataError(Reason.UNREADABLE_INPUT, f"text is not valid {error.encoding}: {error}")
    else:
        trace = redact("".join(traceback.format_exception(error)))
        return Report(reason=Reason.ATTEMPT_FAILED, message=trace[-2000:]), ExitCode.RETRY
    return Report(reason=known.reason, message=redact(known.message)), known.exit_code


def main(input_path: Path, push: Push) -> int:
    """Entry point of every pod; returns an `ExitCode`."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    started = time.monotonic()
    try:
        job = load_job(input_path)
        bind(job)
        log("started")
        if not BY_KIND[job.kind].job(job.stage).serves_metrics:
            serve_metrics(int(os.environ.get("HATCHERY_METRICS_PORT", METRICS_PORT)))
        with tempfile.TemporaryDirectory(prefix="hatchery-") as scratch:
            report, code = run_stage(job, stop, Path(scratch), push), ExitCode.DONE
    except Exception as error:  # noqa: BLE001 - every error becomes a report and an exit code
        report, code = failure(error)
        if not isinstance(error, JobError):
            log("error", trace=traceback.format_exc())
    if stop.is_set() and code == ExitCode.RETRY:
        report, code = failure(Interrupted("the pod received SIGTERM; the next one continues"))
    report = report.model_copy(update={"seconds": round(time.monotonic() - started, 3)})
    log("ended", reason=report.reason, message=report.message, exitCode=int(code), seconds=report.seconds)
    write_termination_message(report)
    return int(code)


def write_termination_message(report: Report) -> None:
    """Writes the shortened report to the termination message file; outside a pod it may not exist."""
    path = Path(os.environ.get("HATCHERY_REPORT_PATH", REPORT_PATH))
    try:
        path.write_text(report.termination_message())
    except OSError as error:
        log("no-termination-message", path=str(path), error=str(error))
