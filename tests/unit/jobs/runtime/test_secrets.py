"""A planted token is in nothing that leaves a pod: log, report, termination message, artifact, repository."""

import io
import json
import os
import random
import subprocess
import sys

import pytest
from tests.support.hub_server import HubServer

from hatchery_api.conditions import Reason
from hatchery_api.contract import ExitCode
from hatchery_jobs.runtime import logs
from hatchery_jobs.runtime.errors import SpecError
from hatchery_jobs.runtime.logs import REDACTED, log, redact
from hatchery_jobs.runtime.run import failure

CANARY = "hf_CanaryTokenThatMustNeverBeSeen"


@pytest.fixture
def hub(tmp_path):
    with HubServer(tmp_path / "hub", tokens=(CANARY,), namespaces=frozenset({"lab"})) as running:
        yield running


@pytest.fixture
def pod(tmp_path, hub):
    """Gives a function that runs a corpus build with a push as a pod does; returns exit code and all that it leaves."""
    source = random.Random(1)
    texts = [" ".join(f"w{source.randrange(10**6)}" for _ in range(200)) for _ in range(20)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    job = {
        "apiVersion": "hatchery.dev/v1alpha1",
        "kind": "CorpusBuild",
        "namespace": "team",
        "name": "code",
        "uid": "u-1",
        "stage": "build",
        "attempt": 2,
        "spec": {
            "sources": [{"name": "a", "files": {"urls": [f"{tmp_path}/texts.jsonl"]}}],
            "hub": {"repo": "lab/code", "endpoint": hub.url, "tokenSecret": {"name": "hub-token"}},
        },
        "output": {"root": str(tmp_path / "store")},
        "hub": {"endpoint": hub.url},
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    environment = {
        "HF_TOKEN": CANARY,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HATCHERY_REPORT_PATH": str(tmp_path / "report"),
        "HATCHERY_METRICS_PORT": "0",
    }

    def run():
        command = [sys.executable, "-m", "hatchery_jobs", "--input", str(tmp_path / "job.json")]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
        left = {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
        written = [path for path in tmp_path.rglob("*") if path.is_file() and tmp_path / "hf" not in path.parents]
        return done.returncode, left | {str(path.relative_to(tmp_path)): path.read_bytes() for path in written}

    return run


def holders(left):
    return [name for name, content in left.items() if CANARY.encode() in content]


def test_a_push_that_succeeds_shows_the_token_to_nobody_else(pod, hub):
    code, left = pod()
    assert code == ExitCode.DONE, left["stdout"]
    assert json.loads(left["report"])["hub"]["repo"] == "lab/code"
    assert [name for name in left if name.endswith("report.json")]
    assert any(request.path.endswith("/commit/main") for request in hub.requests), "the token was used"
    assert holders(left) == []


@pytest.mark.parametrize("status", [400, 401, 403, 500])
def test_a_hub_that_refuses_and_echoes_the_token_does_not_get_it_into_log_or_status(pod, hub, status):
    hub.fail("/commit/", status=status, times=None, message=f"bad token {CANARY} for lab/code")
    code, left = pod()
    assert code in (ExitCode.SPEC_ERROR, ExitCode.RETRY), left["stdout"]
    report = json.loads(left["report"])
    assert report["reason"] != "Completed"
    assert REDACTED in report["message"], "the message says that something stood there"
    assert holders(left) == []


def test_every_line_of_a_pod_says_whose_it_is(pod):
    _, left = pod()
    lines = [json.loads(line) for line in left["stdout"].splitlines()]
    assert {line["event"] for line in lines} >= {"started", "ended"}
    mine = {"kind": "CorpusBuild", "namespace": "team", "name": "code", "uid": "u-1", "attempt": 2, "stage": "build"}
    assert all(mine.items() <= line.items() for line in lines)


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", CANARY)


@pytest.mark.parametrize("behind", [0, 1990, 2010, 1980])
def test_a_trace_that_is_cut_in_the_middle_of_a_token_shows_no_half_of_it(token, behind):
    report, _ = failure(RuntimeError(f"token {CANARY} refused{'x' * behind}"))
    assert CANARY[-12:] not in report.message
    assert CANARY[:12] not in report.message


def test_a_job_error_keeps_its_reason_and_loses_the_token(token):
    report, code = failure(SpecError(Reason.HUB_UNAUTHORIZED, f"the token {CANARY} is wrong"))
    assert (report.reason, report.message, code) == (
        Reason.HUB_UNAUTHORIZED,
        f"the token {REDACTED} is wrong",
        ExitCode.SPEC_ERROR,
    )


def test_log_lines_and_streams_lose_the_token(token, monkeypatch):
    monkeypatch.setattr(logs, "_subject", {})
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    log("x", details={"deep": [CANARY]})
    logs.guard_streams()
    print("a library prints", CANARY)
    sys.stderr.write(f"and warns of {CANARY}\n")
    assert out.getvalue() == f'{{"event": "x", "details": {{"deep": ["{REDACTED}"]}}}}\na library prints {REDACTED}\n'
    assert err.getvalue() == f"and warns of {REDACTED}\n"


def test_what_counts_as_a_secret():
    environment = {
        "AWS_SECRET_ACCESS_KEY": 'quo"ted\\key',
        "KUBEFLOW_TRAINER_SERVER_TOKEN": "/var/run/hatchery/token",
        "TOKENIZERS_PARALLELISM": "false",
        "HOME": "/home/somebody",
    }
    text = 'false /var/run/hatchery/token /home/somebody quo"ted\\key ' + json.dumps('quo"ted\\key')
    assert redact(text, environment) == f'false /var/run/hatchery/token /home/somebody {REDACTED} "{REDACTED}"'
