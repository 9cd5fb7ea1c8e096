"""Every end of a pod is an exit code and a report."""

import json
import sys
import types

import pytest

from hatchery_api.conditions import Reason
from hatchery_api.contract import REPORT_LIMIT_BYTES, ExitCode, Report
from hatchery_api.resources.corpus import CorpusResult, SplitSize
from hatchery_api.status import HubRevision
from hatchery_jobs.runtime import run
from hatchery_jobs.runtime.context import Outcome
from hatchery_jobs.runtime.errors import DataError, Interrupted, RetryableError, SpecError

SPEC = {"sources": [{"name": "a", "files": {"urls": ["/x/*.py"]}}]}


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Writes a JobInput and puts a stage in place; gives a function that runs it."""
    monkeypatch.setenv("HATCHERY_REPORT_PATH", str(tmp_path / "report"))
    monkeypatch.setattr(run, "serve_metrics", lambda _port: None)

    def start(stage, push=pytest.fail, **changes):
        module = types.ModuleType("hatchery_jobs.corpus.pipeline")
        module.run = stage
        monkeypatch.setitem(sys.modules, module.__name__, module)
        data = {
            "apiVersion": "hatchery.dev/v1alpha1",
            "kind": "CorpusBuild",
            "namespace": "n",
            "name": "c",
            "uid": "u",
            "stage": "build",
            "attempt": 1,
            "spec": SPEC,
            "output": {"root": str(tmp_path / "store")},
            "hub": {"endpoint": "http://127.0.0.1:1"},
        } | changes
        path = tmp_path / "job.json"
        path.write_text(json.dumps(data))
        code = run.main(path, push)
        return code, Report.model_validate_json((tmp_path / "report").read_text())

    return start


def build(context):
    draft = context.draft("1")
    done = draft.existing()
    if done is None:
        (draft.folder / "x").write_text("content")
    artifact, folder = done or draft.commit()
    result = CorpusResult(splits={"train": SplitSize(rows=1, bytes=7, shards=1)})
    return Outcome(artifact, folder, result, cached=done is not None)


def test_a_finished_stage_reports_its_artifact(job):
    code, report = job(build)
    assert code == ExitCode.DONE
    assert report.reason is Reason.COMPLETED
    assert report.artifact.bytes == 7
    assert report.result["splits"]["train"]["rows"] == 1


def test_equal_work_is_not_done_twice(job):
    first = job(build)[1]
    second = job(build)[1]
    assert (first.cached, second.cached) == (False, True)
    assert first.artifact == second.artifact


def test_an_artifact_is_pushed_where_the_spec_says(job, monkeypatch):
    pushed = []

    def push(folder, hub, **how):
        pushed.append((folder.name, hub.repo, how))
        return HubRevision(repo=hub.repo, revision="c0ffee", url="https://hub/c0ffee")

    monkeypatch.setenv("HF_TOKEN", "secret")
    report = job(build, push, spec={**SPEC, "hub": {"repo": "lab/texts"}})[1]
    key = report.artifact.key
    how = {"endpoint": "http://127.0.0.1:1", "repo_type": "dataset", "message": f"CorpusBuild n/c {key}"}
    assert pushed == [(key, "lab/texts", {**how, "token": "secret"})]
    assert report.hub.revision == "c0ffee"


def test_a_changed_spec_gives_another_key(job):
    changed = {"sources": [{"name": "a", "files": {"urls": ["/y/*.py"]}}]}
    assert job(build)[1].artifact.key != job(build, spec=changed)[1].artifact.key


def test_operational_fields_do_not_change_the_key(job):
    assert job(build)[1].artifact.key == job(build, spec={**SPEC, "retry": {"maxAttempts": 9}})[1].artifact.key


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (SpecError(Reason.INVALID_SPEC, "m"), 64, Reason.INVALID_SPEC),
        (DataError(Reason.EMPTY_CORPUS, "m"), 65, Reason.EMPTY_CORPUS),
        (RetryableError(Reason.HUB_UNAVAILABLE, "m"), 75, Reason.HUB_UNAVAILABLE),
        (Interrupted("m"), 143, Reason.INTERRUPTED),
        (MemoryError(), 75, Reason.OUT_OF_MEMORY),
        (KeyError("surprise"), 75, Reason.ATTEMPT_FAILED),
    ],
)
def test_errors_become_exit_codes_and_reasons(job, error, code, reason):
    def stage(context):
        raise error

    got, report = job(stage)
    assert (got, report.reason) == (code, reason)
    assert report.message


def test_an_unknown_error_keeps_its_last_lines(job):
    def stage(context):
        raise KeyError("surprise")

    assert "surprise" in job(stage)[1].message


def test_a_pod_of_another_version_refuses(job):
    code, report = job(build, apiVersion="hatchery.dev/v9")
    assert code == ExitCode.SPEC_ERROR
    assert "hatchery.dev/v9" in report.message


def test_a_refused_field_is_named(job):
    code, report = job(build, spec={**SPEC, "surprise": 1})
    assert code == ExitCode.SPEC_ERROR
    assert "spec.surprise" in report.message


def test_an_error_after_a_termination_signal_is_an_interruption(job):
    def stage(context):
        context.stop.set()
        raise OSError("broken pipe")

    code, report = job(stage)
    assert (code, report.reason) == (ExitCode.INTERRUPTED, Reason.INTERRUPTED)


def test_a_long_report_fits_the_termination_message_and_keeps_the_artifact():
    report = Report(reason=Reason.ATTEMPT_FAILED, message="x" * 9000, result={"big": "y" * 9000, "small": 1})
    text = report.termination_message()
    assert len(text.encode()) <= REPORT_LIMIT_BYTES
    short = Report(reason=Reason.COMPLETED, result={"big": "y" * 9000, "small": 1}).termination_message()
    assert json.loads(short)["result"] == {"small": 1}


def test_a_long_message_of_wide_characters_still_fits():
    assert (
        len(Report(reason=Reason.ATTEMPT_FAILED, message="ä" * 9000).termination_message().encode())
        <= REPORT_LIMIT_BYTES
    )
