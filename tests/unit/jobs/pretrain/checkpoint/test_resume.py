"""A run resumes exactly from a pushed checkpoint, or fails with a remedy."""

import shutil

import pytest

pytest.importorskip("huggingface_hub")

import torch
from huggingface_hub import HfApi
from tests.support.jobs.hub_client import served

from hatchery_api.conditions import Reason
from hatchery_api.contract import ExitCode
from hatchery_api.placement import Hub
from hatchery_api.resources.pretrain import HubRevisionSource
from hatchery_jobs.hub.push import push_once
from hatchery_jobs.pretrain.checkpoint.publish import state_branch, state_tag, tag_of
from hatchery_jobs.pretrain.checkpoint.resume import fetch_checkpoint
from hatchery_jobs.pretrain.checkpoint.snapshot import TrainingSnapshot
from hatchery_jobs.pretrain.checkpoint.store import FILES, Checkpoints
from hatchery_jobs.pretrain.state import RunState
from hatchery_jobs.runtime.errors import DataError, JobError, RetryableError, SpecError

pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")


@pytest.fixture
def server(tmp_path, monkeypatch):
    with served(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture
def api(server):
    return HfApi(endpoint=server.url, token="writer")


@pytest.fixture
def origin(tmp_path):
    """Checkpoints of the run that pushes."""
    return Checkpoints(tmp_path / "origin", 9)


@pytest.fixture
def checkpoints(tmp_path):
    """Checkpoints of the run that goes on."""
    return Checkpoints(tmp_path / "run", 2)


def save(checkpoints, step):
    snapshot = TrainingSnapshot(
        {"weight": torch.full((200,), float(step))}, {"state": {"weight": {"m": torch.full((200,), -float(step))}}}
    )
    return checkpoints.save(RunState(step=step, batch=step + 1, curve_bytes=77, recent_losses=[1.5]), snapshot)


@pytest.fixture
def push(server, tmp_path, origin):
    """Pushes a checkpoint as the publisher does, or only one of its halves."""

    def pushed(step, *, branch="main", halves=("state", "model")):
        checkpoint = save(origin, step)
        tag = tag_of(branch, step)
        for half, names, to, name in (
            ("state", ("optimizer.pt", "manifest.json"), state_branch(branch), state_tag(tag)),
            ("model", ("model.safetensors",), branch, tag),
        ):
            folder = tmp_path / "staged" / half
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for file in names:
                shutil.copyfile(checkpoint / file, folder / file)
            if half in halves:
                hub = Hub(repo="lab/model", revision=to)
                push_once(folder, hub, "model", f"step {step}", tag=name, endpoint=server.url)

    return pushed


@pytest.fixture
def fetch(server, checkpoints):
    def fetched(revision="main", repo="lab/model", **more):
        return fetch_checkpoint(HubRevisionSource(repo=repo, revision=revision, **more), checkpoints, server.url)

    return fetched


def failure(fetch, *args, **options):
    with pytest.raises(JobError) as caught:
        fetch(*args, **options)
    return caught.value


def test_a_pushed_checkpoint_becomes_the_newest_one(push, fetch, origin, checkpoints):
    push(5)
    assert fetch() == checkpoints.path(5)
    assert checkpoints.newest() == origin.newest().model_copy(update={"curve_bytes": 0})
    for name in FILES:
        assert (checkpoints.path(5) / name).read_bytes() == (origin.path(5) / name).read_bytes()
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000005"]


@pytest.mark.parametrize("revision", ["main", "step-5", "commit", "short"])
def test_a_branch_is_its_newest_checkpoint_and_a_tag_or_commit_that_one(push, fetch, api, checkpoints, revision):
    push(5)
    commit = api.model_info("lab/model").sha
    push(10)
    fetch({"commit": commit, "short": commit[:7]}.get(revision, revision))
    assert checkpoints.newest().step == (10 if revision == "main" else 5)


def test_every_branch_has_its_own(push, fetch, checkpoints):
    push(5, branch="a.b")
    push(10)
    fetch("a.b")
    assert checkpoints.newest().step == 5


def test_after_a_course_was_left_the_newest_is_the_last_pushed(push, fetch, checkpoints):
    push(10)
    push(5)
    fetch()
    assert checkpoints.newest().step == 5


def test_a_push_that_broke_off_is_passed_over(push, fetch, checkpoints):
    push(5)
    push(10, halves=("state",))
    fetch()
    assert checkpoints.newest().step == 5


def test_a_run_with_a_checkpoint_of_its_own_does_not_ask_the_hub(push, fetch, server, checkpoints):
    push(5)
    save(checkpoints, 3)
    server.forget()
    assert fetch() is None
    assert not server.requests
    assert checkpoints.newest().step == 3


def test_a_torn_one_of_its_own_does_not_count(push, fetch, checkpoints):
    push(5)
    (save(checkpoints, 8) / "optimizer.pt").unlink()
    fetch()
    assert checkpoints.newest().step == 5


def test_an_endpoint_of_the_source_goes_first(push, server, checkpoints):
    push(5)
    source = HubRevisionSource(repo="lab/model", endpoint=server.url)
    assert fetch_checkpoint(source, checkpoints, "http://localhost:9") is not None


def test_a_spoilt_download_is_repeated(push, fetch, server, checkpoints):
    push(5)
    server.fail("GET .*/-/lfs/.*|GET .*/resolve/.*/model.safetensors", corrupt=True)
    fetch()
    assert checkpoints.newest().step == 5
    assert not server.faults.left()


def test_files_that_do_not_belong_together_are_refused(push, fetch, api, checkpoints):
    push(5)
    push(10)
    commit = api.model_info("lab/model", revision="step-10").sha
    api.delete_tag("lab/model", tag="step-5")
    api.create_tag("lab/model", tag="step-5", revision=commit)
    error = failure(fetch, "step-5")
    assert isinstance(error, DataError)
    assert error.reason == Reason.ARTIFACT_CORRUPT
    assert "model.safetensors is not the file that was pushed" in error.message
    assert not list(checkpoints.folder.iterdir())


@pytest.mark.parametrize("revision", ["no-such", "step-7", "0123456789"])
def test_a_missing_revision_is_named_with_those_there_are(push, fetch, revision):
    push(5)
    error = failure(fetch, revision)
    assert (type(error), error.reason) == (SpecError, Reason.HUB_NOT_FOUND)
    assert f"lab/model at {revision}" in error.message
    assert "step-5" in error.message


@pytest.mark.parametrize("revision", ["main", "step-5"])
def test_weights_without_state_are_refused_with_a_remedy(push, fetch, revision):
    push(5, halves=("model",))
    error = failure(fetch, revision)
    assert error.exit_code == ExitCode.SPEC_ERROR
    assert all(part in error.message for part in ("spec.checkpoint.resumeFrom", "spec.model.from.hub", "pushEvery"))


def test_a_missing_repository_is_a_mistake_in_the_spec(fetch, server):
    error = failure(fetch, repo="lab/other")
    assert error.exit_code == ExitCode.SPEC_ERROR
    assert "spec.checkpoint.resumeFrom" in error.message


def test_a_hub_that_is_away_is_tried_again(push, fetch, server, checkpoints):
    push(5)
    server.fail("GET /api/models/lab/model/refs", times=None, status=503)
    error = failure(fetch)
    assert isinstance(error, RetryableError)
    server.faults.replace([])
    fetch()
    assert checkpoints.newest().step == 5
