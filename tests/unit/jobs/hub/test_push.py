"""Pushing a folder: one commit, none when nothing changed, and an error that says what to do when the Hub says no."""

import json
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from huggingface_hub import HfApi, constants
from tests.support.hub_server import HubServer

from hatchery_api.conditions import Reason
from hatchery_api.contract import ExitCode
from hatchery_api.placement import Hub
from hatchery_jobs.hub import push as module
from hatchery_jobs.hub.push import ATTEMPTS, check_writable, push_folder
from hatchery_jobs.runtime.errors import DataError, JobError, RetryableError, SpecError

pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")
MODEL = Hub(repo="lab/model")


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    """A fresh process's settings, and the client's own sleeps noted instead of slept."""
    harnesses = tmp_path / "harnesses.json"
    harnesses.write_text("{}")
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(harnesses), raising=False)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    monkeypatch.setenv("HF_TOKEN", "writer")


@pytest.fixture
def server(tmp_path, monkeypatch):
    options = {"tokens": ("writer",), "read_tokens": ("reader",), "namespaces": frozenset({"lab"})}
    with HubServer(tmp_path / "hub", **options) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)  # the check of cards knows no other endpoint
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield running


@pytest.fixture
def api(server):
    return HfApi(endpoint=server.url, token="writer")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "artifact"
    (made / "data").mkdir(parents=True)
    (made / "README.md").write_text("---\nlicense: mit\n---\n# Model\n")
    (made / "model.safetensors").write_bytes(bytes(2000))
    (made / "data" / "a.txt").write_text("a")
    return made


@pytest.fixture
def push(server, folder):
    """Pushes the folder as a model; keeps what it slept in `push.slept`."""

    def pushed(hub=MODEL, repo_type="model", message="Model", **options):
        return push_folder(folder, hub, repo_type, message, endpoint=server.url, sleep=pushed.slept.append, **options)

    pushed.slept = []
    return pushed


def failure(push, *args, **options):
    with pytest.raises(JobError) as caught:
        push(*args, **options)
    return caught.value


def commits(server):
    return [seen for seen in server.requests if "/commit/" in seen.path]


def test_the_first_push_makes_a_private_repository_and_one_commit(push, server, api):
    revision = push()
    assert (revision.repo, len(revision.revision)) == ("lab/model", 40)
    assert revision.url == f"{server.url}/lab/model/commit/{revision.revision}"
    info = api.model_info("lab/model")
    assert (info.private, info.sha) == (True, revision.revision)
    assert [commit.title for commit in api.list_repo_commits("lab/model")] == ["Model", "initial commit"]


def test_pushing_an_unchanged_folder_returns_the_same_commit(push, server):
    first = push()
    server.forget()
    assert push() == first
    assert [seen.line for seen in server.requests] == [
        "POST /api/repos/create",
        "GET /api/models/lab/model/revision/main",
        f"GET /api/models/lab/model/tree/{first.revision}",
    ]


def test_files_that_left_the_folder_leave_the_repository_in_the_same_commit(push, server, api, folder):
    push()
    (folder / "data" / "a.txt").unlink()
    (folder / "data" / "b.txt").write_text("b")
    push()
    assert api.list_repo_files("lab/model") == [".gitattributes", "README.md", "data/b.txt", "model.safetensors"]
    assert len(commits(server)) == 2


def test_content_of_equal_length_is_told_apart(push, api, folder, tmp_path):
    push()
    (folder / "data" / "a.txt").write_text("z")
    (folder / "model.safetensors").write_bytes(b"\1" * 2000)
    revision = push().revision
    for name in ("data/a.txt", "model.safetensors"):
        copy = api.hf_hub_download("lab/model", name, revision=revision, cache_dir=tmp_path / "cache")
        assert Path(copy).read_bytes() == (folder / name).read_bytes()


def test_the_record_of_a_run_names_hosts_and_is_not_published(push, api, folder):
    (folder / "run").mkdir()
    (folder / "run" / "report.html").write_text("node-7 at noon")
    push()
    published = [".gitattributes", "README.md", "data/a.txt", "model.safetensors"]
    assert api.list_repo_files("lab/model") == published


def test_a_file_may_take_the_name_of_a_folder(push, api, folder):
    push()
    (folder / "data" / "a.txt").unlink()
    (folder / "data").rmdir()
    (folder / "data").write_text("now a file")
    push()
    assert "data" in api.list_repo_files("lab/model")


def test_a_branch_is_made_and_main_stays(push, api):
    revision = push(Hub(repo="lab/model", revision="step-10"))
    assert api.model_info("lab/model", revision="step-10").sha == revision.revision
    assert api.list_repo_files("lab/model") == [".gitattributes"]
    assert push(Hub(repo="lab/model", revision="step-10")) == revision


def test_a_dataset_goes_to_a_dataset_repository(push, server, api):
    revision = push(Hub(repo="lab/corpus", private=False), repo_type="dataset")
    assert revision.url.startswith(f"{server.url}/datasets/lab/corpus/commit/")
    assert api.dataset_info("lab/corpus").private is False


def test_the_spec_may_name_the_endpoint(server, folder):
    assert push_folder(folder, Hub(repo="lab/model", endpoint=server.url), "model", "M").url.startswith(server.url)


def test_xet_is_off_for_other_hubs_and_as_set_for_the_public_one(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with module._quiet_client("http://hub.lab"):
        assert constants.HF_HUB_DISABLE_XET
        assert constants.HF_HUB_DISABLE_TELEMETRY
    with module._quiet_client(module.PUBLIC_ENDPOINT):
        assert not constants.HF_HUB_DISABLE_XET
    assert not constants.HF_HUB_DISABLE_XET


def test_nothing_asks_the_client_to_print(push, capfd):
    push()
    assert "model.safetensors" not in "".join(capfd.readouterr())


# Errors of the user


def test_no_token_names_the_field(push, monkeypatch, server):
    monkeypatch.setenv("HF_TOKEN", " ")
    error = failure(push)
    assert (type(error), error.reason, error.exit_code) == (SpecError, Reason.HUB_UNAUTHORIZED, ExitCode.SPEC_ERROR)
    assert "spec.hub.tokenSecret" in error.message
    assert server.requests == []


@pytest.mark.parametrize(
    ("token", "hub", "reason", "words"),
    [
        ("stolen", MODEL, Reason.HUB_UNAUTHORIZED, ["401", "expired", "spec.hub.tokenSecret", "lab/model"]),
        ("reader", MODEL, Reason.HUB_UNAUTHORIZED, ["403", "write permission", "spec.hub.tokenSecret"]),
        ("writer", Hub(repo="other/model"), Reason.HUB_UNAUTHORIZED, ["403", "'other'", "spec.hub.repo"]),
        ("writer", Hub(repo="lab/a--b"), Reason.INVALID_SPEC, ["lab/a--b", "spec.hub.repo"]),
        ("writer", Hub(repo="lab/model", revision="refs/x"), Reason.INVALID_SPEC, ["400", "refs/x", "spec.hub"]),
    ],
)
def test_what_the_user_must_change_ends_at_once_and_says_what(push, token, hub, reason, words):
    error = failure(push, hub, token=token)
    assert (type(error), error.reason) == (SpecError, reason)
    assert [word for word in words if word not in error.message] == []
    assert push.slept == []


def test_a_repository_that_is_not_there_is_named(push, server):
    server.fail(r"POST /api/repos/create", status=404, code="RepoNotFound", message="No organization lab")
    error = failure(push)
    assert (type(error), error.reason) == (SpecError, Reason.HUB_NOT_FOUND)
    assert "lab/model" in error.message
    assert "No organization lab" in error.message


def test_private_work_is_not_pushed_to_a_public_repository(push, api, server):
    api.create_repo("lab/model", private=False)
    error = failure(push)
    assert (error.reason, commits(server)) == (Reason.INVALID_SPEC, [])
    assert "spec.hub.private" in error.message
    assert push(Hub(repo="lab/model", private=False)).revision


def test_a_card_with_broken_metadata_is_refused_with_the_hubs_words(push, folder):
    (folder / "README.md").write_text("---\nlicense: mit\n")
    error = failure(push)
    assert (error.reason, "not closed" in error.message) == (Reason.INVALID_SPEC, True)


@pytest.mark.parametrize("case", ["empty", "link", "link to a folder"])
def test_a_folder_that_cannot_be_published_is_named(push, folder, tmp_path, case):
    secret = tmp_path / "secret"
    secret.write_text("s")
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.unlink()
    if case == "link":
        (folder / "README.md").symlink_to(secret)
    if case == "link to a folder":
        (folder / "more").symlink_to(tmp_path)
    error = failure(push)
    assert (type(error), str(folder) in error.message) == (DataError, True)


def test_an_error_that_is_not_the_hubs_stays_itself(push, monkeypatch):
    monkeypatch.setattr(module, "_files", lambda _folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        push()


# Bad days of the Hub


def test_a_rate_limit_is_waited_out_as_long_as_the_hub_asks(push, server):
    server.fail(r"POST .*/commit/", status=429, headers={"Retry-After": "30"})
    assert push().revision
    assert push.slept == [30.0]
    assert server.faults.left() == []


def test_a_hub_that_asks_for_too_much_patience_is_left_to_the_jobs_back_off(push, server):
    server.fail(r"POST .*/commit/", status=429, headers={"Retry-After": "3600"})
    error = failure(push)
    assert (type(error), error.reason, error.exit_code) == (RetryableError, Reason.HUB_UNAVAILABLE, ExitCode.RETRY)
    assert push.slept == []


def test_a_hub_that_stays_away_is_given_up_after_bounded_attempts(push, server):
    server.fail(r"POST /api/repos/create", status=503, times=None)
    error = failure(push)
    assert (type(error), error.reason) == (RetryableError, Reason.HUB_UNAVAILABLE)
    assert "503" in error.message
    assert push.slept == [2.0, 4.0, 8.0]
    assert len(server.requests) == ATTEMPTS


def test_a_hub_that_cannot_be_reached_is_retryable(folder):
    slept = []
    with pytest.raises(RetryableError, match=r"Cannot reach .*spec\.hub\.endpoint") as caught:
        push_folder(folder, MODEL, "model", "M", endpoint="http://127.0.0.1:1", sleep=slept.append)
    assert (caught.value.reason, len(slept)) == (Reason.HUB_UNAVAILABLE, ATTEMPTS - 1)


def test_an_upload_that_is_refused_for_a_moment_is_repeated(push, server):
    server.fail(r"PUT /-/lfs/", status=500, times=8)  # six are the client's own attempts
    assert push().revision
    assert push.slept == [2.0]


def test_an_upload_link_that_expired_is_asked_for_again(push, server):
    server.fail(r"PUT /-/lfs/", status=403)
    assert push().revision
    assert push.slept == [2.0]


@pytest.mark.parametrize("reset", [True, False])
def test_a_lost_answer_does_not_make_a_second_commit(push, server, api, reset):
    server.fail(r"POST .*/commit/", drop_after_bytes=0, reset=reset)
    revision = push()
    assert revision.revision == api.model_info("lab/model").sha
    assert len(commits(server)) == 1
    assert len(api.list_repo_commits("lab/model")) == 2


def test_a_branch_that_moved_during_the_push_is_looked_at_again(push, server, api, folder):
    push()
    (folder / "data" / "a.txt").write_text("changed")
    server.fail(r"POST .*/preupload/", delay_seconds=1)
    server.faults._sleep = lambda _seconds: api.upload_file(
        repo_id="lab/model", path_in_repo="stranger.txt", path_or_fileobj=b"x"
    )
    assert push(message="Again").revision
    assert "stranger.txt" not in api.list_repo_files("lab/model")


def test_two_pushes_at_once_both_end_at_the_same_files(server, folder, api):
    ended = []

    def run():
        ended.append(push_folder(folder, MODEL, "model", "M", endpoint=server.url, sleep=lambda _seconds: None))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {revision.revision for revision in ended} == {api.model_info("lab/model").sha}
    assert len(ended) == 2


def test_the_token_is_in_no_message_and_no_log(push, server, caplog):
    caplog.set_level("DEBUG")
    server.fail(r"POST /api/repos/create", status=503, times=None)
    error = failure(push, token="writer-secret-token")
    assert "writer-secret-token" not in error.message
    assert "writer-secret-token" not in caplog.text
    assert "writer-secret-token" not in json.dumps([vars(seen) for seen in server.requests])


def test_the_pushed_folder_comes_back_byte_for_byte(push, api, folder, tmp_path):
    copy = Path(api.snapshot_download("lab/model", revision=push().revision, cache_dir=tmp_path / "cache"))
    for file in (path for path in folder.rglob("*") if path.is_file()):
        assert (copy / file.relative_to(folder)).read_bytes() == file.read_bytes()


def test_a_token_that_may_write_passes_and_makes_the_repository(server, api):
    check_writable(MODEL, "model", endpoint=server.url)
    check_writable(MODEL, "model", endpoint=server.url)
    assert api.repo_info("lab/model").private


@pytest.mark.parametrize(
    ("token", "repo", "reason"),
    [
        ("reader", "lab/model", Reason.HUB_UNAUTHORIZED),
        ("writer", "elsewhere/model", Reason.HUB_UNAUTHORIZED),
        ("", "lab/model", Reason.HUB_UNAUTHORIZED),
    ],
)
def test_a_token_that_may_not_write_is_refused_before_anything_is_computed(
    server, api, monkeypatch, token, repo, reason
):
    api.create_repo("lab/model", private=True)
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(SpecError) as caught:
        check_writable(Hub(repo=repo), "model", endpoint=server.url)
    assert caught.value.reason == reason


def test_a_hub_that_is_away_says_nothing_about_the_token(tmp_path):
    with HubServer(tmp_path / "hub", tokens=("writer",)) as running:
        gone = running.url
    with pytest.raises(RetryableError):
        check_writable(MODEL, "model", endpoint=gone)
