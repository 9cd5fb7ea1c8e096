"""The test Hub against the clients it is for: what they send, what they make of the answers, how they fail."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, constants, errors
from huggingface_hub.utils import disable_progress_bars
from tests.support.hub_server import HubServer

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "support" / "hub_server"
pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")
WEIGHTS = bytes(range(256)) * 16


@pytest.fixture
def waits(monkeypatch):
    """Sleeps of the clients, noted instead of slept."""
    noted = []
    monkeypatch.setattr(time, "sleep", noted.append)
    return noted


@pytest.fixture(autouse=True)
def only_this_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "harnesses.json"), raising=False)
    (tmp_path / "harnesses.json").write_text("{}")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    disable_progress_bars()


@pytest.fixture
def server(tmp_path, monkeypatch):
    options = {"tokens": ("writer",), "read_tokens": ("reader",), "sleep": lambda _seconds: None}
    with HubServer(tmp_path / "hub", **options) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield running


@pytest.fixture
def api(server):
    return HfApi(endpoint=server.url, token="writer")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "model"
    (made / "nested").mkdir(parents=True)
    (made / "README.md").write_text("---\nlicense: mit\n---\n# Model\n")
    (made / "model.safetensors").write_bytes(WEIGHTS)
    (made / "nested" / "config.json").write_text('{"layers": 2}')
    (made / "empty.txt").write_text("")
    return made


@pytest.fixture
def repo(api, server, folder):
    api.create_repo("lab/model", private=True)
    commit = api.upload_folder(repo_id="lab/model", folder_path=folder, commit_message="First")
    server.forget()
    return commit.oid


def lines(server):
    """The log with ids and revisions made readable."""
    text = "\n".join(seen.line for seen in server.requests)
    return re.sub(r"[0-9a-f]{64}", "OID", re.sub(r"\b[0-9a-f]{40}\b", "SHA", text)).split("\n")


def fetch(url, method="GET", token="writer", body=None, **headers):
    request = urllib.request.Request(url, method=method, headers=headers, data=body)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read(), response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


# Repositories and identity


def test_whoami_names_the_user_and_the_role(api, server):
    assert api.whoami()["name"] == "hatchery"
    assert HfApi(endpoint=server.url, token="reader").whoami()["auth"]["accessToken"]["role"] == "read"


def test_an_unknown_token_is_a_401_that_the_client_does_not_take_for_a_missing_repository(server):
    with pytest.raises(errors.HfHubHTTPError) as caught:
        HfApi(endpoint=server.url, token="stolen").model_info("lab/model")
    assert caught.value.response.status_code == 401
    assert not isinstance(caught.value, errors.RepositoryNotFoundError)


def test_creating_a_repository_twice_is_a_409_unless_it_may_exist(api, server):
    first = api.create_repo("lab/model", private=True)
    assert (first.repo_id, str(first)) == ("lab/model", f"{server.url}/lab/model")
    with pytest.raises(errors.HfHubHTTPError) as caught:
        api.create_repo("lab/model")
    assert caught.value.response.status_code == 409
    assert api.create_repo("lab/model", exist_ok=True).repo_id == "lab/model"
    assert api.create_repo("lab/model", repo_type="dataset").repo_type == "dataset"
    assert api.model_info("lab/model").private


def test_a_name_without_organisation_belongs_to_the_caller(api):
    assert api.create_repo("alone").repo_id == "hatchery/alone"


@pytest.mark.parametrize("name", ["a/../b", "a/b--c", "a/b.git", "api/b", "a/.b", "a/b/c", "a/" + "b" * 96])
def test_ids_that_would_leave_the_root_or_hide_a_route_are_refused(server, name):
    organisation, _, rest = name.partition("/")
    body = json.dumps({"name": rest, "organization": organisation}).encode()
    assert fetch(f"{server.url}/api/repos/create", "POST", body=body)[0] == 400


def test_a_private_repository_does_not_exist_for_strangers(api, server, repo):
    stranger = HfApi(endpoint=server.url, token=False)
    with pytest.raises(errors.RepositoryNotFoundError) as caught:
        stranger.model_info("lab/model")
    assert caught.value.response.status_code == 404
    assert fetch(f"{server.url}/lab/model/resolve/main/README.md", token=None)[0] == 404
    api.update_repo_settings("lab/model", visibility="public")
    assert stranger.model_info("lab/model").sha == repo


def test_a_read_token_reads_and_gets_403_for_every_write(server, repo, folder):
    reader = HfApi(endpoint=server.url, token="reader")
    assert reader.model_info("lab/model").sha == repo
    for write in (
        lambda: reader.create_repo("lab/other"),
        lambda: reader.upload_folder(repo_id="lab/model", folder_path=folder),
        lambda: reader.create_branch("lab/model", branch="b"),
        lambda: reader.delete_repo("lab/model"),
    ):
        with pytest.raises(errors.HfHubHTTPError) as caught:
            write()
        assert caught.value.response.status_code == 403


def test_namespaces_limit_where_repositories_are_made(tmp_path):
    with HubServer(tmp_path / "hub", tokens=("writer",), namespaces=frozenset({"lab"})) as server:
        api = HfApi(endpoint=server.url, token="writer")
        assert api.create_repo("lab/a").repo_id == "lab/a"
        with pytest.raises(errors.HfHubHTTPError) as caught:
            api.create_repo("elsewhere/a")
        assert caught.value.response.status_code == 403


def test_repositories_are_moved_and_deleted(api, repo):
    api.move_repo("lab/model", "lab/renamed")
    assert api.model_info("lab/renamed").sha == repo
    assert not api.repo_exists("lab/model")
    api.delete_repo("lab/renamed")
    api.delete_repo("lab/renamed", missing_ok=True)
    with pytest.raises(errors.RepositoryNotFoundError):
        api.delete_repo("lab/renamed")


# Uploads and commits


def test_upload_folder_sends_the_known_sequence(api, server, folder):
    api.create_repo("lab/model")
    server.forget()
    api.upload_folder(repo_id="lab/model", folder_path=folder)
    assert lines(server) == [
        "POST /api/validate-yaml",
        "POST /api/validate-yaml",
        "POST /api/models/lab/model/preupload/main",
        "POST /lab/model.git/info/lfs/objects/batch",
        "PUT /-/lfs/models/lab/model/object/OID",
        "POST /lab/model.git/info/lfs/verify",
        "POST /api/models/lab/model/commit/main",
    ]


def test_uploading_an_unchanged_folder_makes_no_commit(api, server, repo, folder):
    again = api.upload_folder(repo_id="lab/model", folder_path=folder)
    assert again.oid == repo
    assert lines(server)[2:] == [
        "POST /api/models/lab/model/preupload/main",
        "POST /lab/model.git/info/lfs/objects/batch",
        "GET /api/models/lab/model/revision/main",
    ]


def test_a_changed_file_makes_one_commit_on_top(api, repo, folder):
    (folder / "nested" / "config.json").write_text('{"layers": 3}')
    new = api.upload_folder(repo_id="lab/model", folder_path=folder, commit_message="Second", commit_description="Why")
    history = api.list_repo_commits("lab/model")
    assert [commit.title for commit in history] == ["Second", "First", "initial commit"]
    assert (history[0].commit_id, history[1].commit_id, history[0].message) == (new.oid, repo, "Why")


def test_a_stale_parent_is_a_412_and_changes_nothing(api, repo):
    api.upload_file(repo_id="lab/model", path_in_repo="a.txt", path_or_fileobj=b"1", parent_commit=repo[:7])
    with pytest.raises(errors.HfHubHTTPError) as caught:
        api.upload_file(repo_id="lab/model", path_in_repo="a.txt", path_or_fileobj=b"2", parent_commit=repo)
    assert caught.value.response.status_code == 412
    assert len(api.list_repo_commits("lab/model")) == 3


def test_files_and_folders_are_deleted_and_copied(api, repo):
    operations = [
        CommitOperationDelete("nested/"),
        CommitOperationDelete("empty.txt"),
        CommitOperationCopy("model.safetensors", "copy.safetensors"),
    ]
    api.create_commit("lab/model", operations, commit_message="Tidy")
    assert api.list_repo_files("lab/model") == [".gitattributes", "README.md", "copy.safetensors", "model.safetensors"]
    with pytest.raises(errors.EntryNotFoundError):
        api.delete_file("absent.txt", "lab/model")


@pytest.mark.parametrize("path", ["../x", "a//b", ".git/config", "/x", "a/./b"])
def test_paths_that_git_could_not_hold_are_refused_by_the_server_itself(server, repo, path):
    commit = [
        {"key": "header", "value": {"summary": "s"}},
        {"key": "file", "value": {"path": path, "content": "eA==", "encoding": "base64"}},
    ]
    body = "\n".join(map(json.dumps, commit)).encode()
    assert fetch(f"{server.url}/api/models/lab/model/commit/main", "POST", body=body)[0] == 400


def test_a_large_file_that_was_never_sent_cannot_be_committed(server, repo):
    commit = [
        {"key": "header", "value": {"summary": "s"}},
        {"key": "lfsFile", "value": {"path": "a.bin", "algo": "sha256", "oid": "0" * 64, "size": 1}},
    ]
    body = "\n".join(map(json.dumps, commit)).encode()
    assert fetch(f"{server.url}/api/models/lab/model/commit/main", "POST", body=body)[0] == 400


def test_large_files_can_be_sent_in_parts(tmp_path, folder):
    with HubServer(tmp_path / "hub", tokens=("writer",), part_bytes=1000) as server:
        api = HfApi(endpoint=server.url, token="writer")
        api.create_repo("lab/model")
        server.forget()
        api.upload_folder(repo_id="lab/model", folder_path=folder)
        assert sum(line.startswith("PUT /-/lfs/models/lab/model/part/") for line in lines(server)) == 5
        path = api.hf_hub_download("lab/model", "model.safetensors", cache_dir=tmp_path / "cache")
        assert Path(path).read_bytes() == WEIGHTS


def test_upload_links_are_signed_and_check_the_content(server, repo):
    oid = "1" * 64
    body = json.dumps({"objects": [{"oid": oid, "size": 3}]}).encode()
    answer = json.loads(fetch(f"{server.url}/lab/model.git/info/lfs/objects/batch", "POST", body=body)[1])
    link = answer["objects"][0]["actions"]["upload"]["href"]
    assert fetch(link, "PUT", token=None, body=b"abc")[0] == 400
    assert fetch(link.replace("signature=", "signature=0"), "PUT", token=None, body=b"abc")[0] == 403


# Branches, tags, trees


def test_branches_and_tags_come_and_go(api, repo):
    api.create_branch("lab/model", branch="step/10", revision=repo)
    api.create_branch("lab/model", branch="step/10", exist_ok=True)
    with pytest.raises(errors.HfHubHTTPError) as caught:
        api.create_branch("lab/model", branch="step/10")
    assert caught.value.response.status_code == 409
    api.create_tag("lab/model", tag="v1", revision="step/10")
    api.create_tag("lab/model", tag="v1", exist_ok=True)
    refs = api.list_repo_refs("lab/model")
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": repo, "step/10": repo}
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1", repo)]
    api.upload_file(repo_id="lab/model", path_in_repo="x", path_or_fileobj=b"x", revision="step/10")
    assert api.model_info("lab/model", revision="step/10").sha != api.model_info("lab/model").sha == repo
    api.delete_branch("lab/model", branch="step/10")
    api.delete_tag("lab/model", tag="v1")
    with pytest.raises(errors.RevisionNotFoundError):
        api.delete_tag("lab/model", tag="v1")
    with pytest.raises(errors.RevisionNotFoundError):
        api.model_info("lab/model", revision="step/10")


def test_a_pull_request_leaves_main_alone(api, repo):
    operation = CommitOperationAdd("x.txt", b"x")
    info = api.create_commit("lab/model", [operation], commit_message="Offer", create_pr=True)
    assert info.pr_revision == "refs/pr/1"
    assert "x.txt" in api.list_repo_files("lab/model", revision="refs/pr/1")
    assert "x.txt" not in api.list_repo_files("lab/model")


def test_squashing_leaves_one_commit_with_all_files(api, repo):
    files = api.list_repo_files("lab/model")
    api.super_squash_history("lab/model")
    assert len(api.list_repo_commits("lab/model")) == 1
    assert api.list_repo_files("lab/model") == files


def test_trees_tell_size_hash_and_last_commit(api, repo):
    new = api.upload_file(repo_id="lab/model", path_in_repo="nested/b.txt", path_or_fileobj=b"b").oid
    rows = {row.path: row for row in api.list_repo_tree("lab/model", recursive=True, expand=True)}
    assert rows["model.safetensors"].lfs.size == rows["model.safetensors"].size == len(WEIGHTS)
    assert rows["model.safetensors"].last_commit.oid == repo
    assert rows["nested/b.txt"].last_commit.oid == rows["nested"].last_commit.oid == new
    assert [row.path for row in api.list_repo_tree("lab/model", "nested")] == ["nested/b.txt", "nested/config.json"]
    assert [row.path for row in api.get_paths_info("lab/model", ["nested", "README.md", "no"])] == [
        "nested",
        "README.md",
    ]
    with pytest.raises(errors.EntryNotFoundError):
        list(api.list_repo_tree("lab/model", "absent"))
    infos = api.model_info("lab/model", files_metadata=True).siblings
    assert {info.rfilename: info.size for info in infos}["nested/config.json"] == 13


def test_long_lists_come_in_pages(tmp_path):
    with HubServer(tmp_path / "hub", tokens=("writer",), page_size=3) as server:
        api = HfApi(endpoint=server.url, token="writer")
        api.create_repo("lab/data", repo_type="dataset")
        files = [CommitOperationAdd(f"{i}.txt", b"x") for i in range(8)]
        api.create_commit("lab/data", files, commit_message="Many", repo_type="dataset")
        assert len(api.list_repo_files("lab/data", repo_type="dataset")) == 9
        assert sum("/tree/" in line for line in lines(server)) == 3


# Downloads


def test_a_download_is_one_head_and_one_get_and_then_cached(api, server, repo, tmp_path):
    download = {"repo_id": "lab/model", "filename": "nested/config.json", "cache_dir": tmp_path / "cache"}
    path = Path(api.hf_hub_download(**download))
    assert path.read_text() == '{"layers": 2}'
    assert path.parts[-3] == repo
    api.hf_hub_download(**download)
    route = "/lab/model/resolve/main/nested/config.json"
    assert lines(server) == [f"HEAD {route}", f"GET {route}", f"HEAD {route}"]


def test_a_snapshot_equals_the_folder_by_commit(api, server, repo, folder, tmp_path):
    copy = Path(api.snapshot_download("lab/model", cache_dir=tmp_path / "cache"))
    assert copy.name == repo
    for file in (path for path in folder.rglob("*") if path.is_file()):
        assert (copy / file.relative_to(folder)).read_bytes() == file.read_bytes()
    assert lines(server)[:2] == [
        "GET /api/models/lab/model/revision/main",
        "GET /api/models/lab/model/tree/SHA",
    ]
    names = (".gitattributes", "README.md", "model.safetensors", "nested/config.json")
    resolve = "/lab/model/resolve/SHA"
    fetched = {f"{method} {resolve}/{name}" for method in ("HEAD", "GET") for name in names}
    assert set(lines(server)[2:]) == {*fetched, f"HEAD {resolve}/empty.txt"}


def test_what_is_missing_is_told_apart(api, repo, tmp_path):
    cache = tmp_path / "cache"
    with pytest.raises(errors.RemoteEntryNotFoundError):
        api.hf_hub_download("lab/model", "absent", cache_dir=cache)
    assert list(cache.glob(f"models--lab--model/.no_exist/{repo}/absent"))
    with pytest.raises(errors.RevisionNotFoundError):
        api.hf_hub_download("lab/model", "README.md", revision="absent", cache_dir=cache)
    with pytest.raises(errors.RepositoryNotFoundError):
        api.hf_hub_download("lab/absent", "README.md", cache_dir=cache)


@pytest.mark.parametrize(
    ("asked", "status", "content", "told"),
    [
        ("bytes=0-9", 206, WEIGHTS[:10], "bytes 0-9/4096"),
        ("bytes=4000-", 206, WEIGHTS[4000:], "bytes 4000-4095/4096"),
        ("bytes=-16", 206, WEIGHTS[-16:], "bytes 4080-4095/4096"),
        ("bytes=4090-9999", 206, WEIGHTS[4090:], "bytes 4090-4095/4096"),
        ("bytes=4096-", 416, None, "bytes */4096"),
        ("bytes=9-3", 416, None, "bytes */4096"),
        ("bytes=0-1,5-6", 200, WEIGHTS, None),
        ("lines=0-1", 200, WEIGHTS, None),
    ],
)
def test_ranges(server, repo, asked, status, content, told):
    found, body, headers = fetch(f"{server.url}/lab/model/resolve/main/model.safetensors", Range=asked)
    assert (found, headers["Content-Range"]) == (status, told)
    assert content is None or body == content


def test_large_files_carry_their_sha256_and_small_ones_their_git_id(api, server, repo):
    _, _, large = fetch(f"{server.url}/lab/model/resolve/main/model.safetensors", "HEAD")
    _, _, small = fetch(f"{server.url}/lab/model/resolve/main/README.md", "HEAD")
    row = api.get_paths_info("lab/model", ["README.md"])[0]
    assert (
        large["X-Linked-Etag"]
        == large["ETag"]
        == '"' + api.get_paths_info("lab/model", ["model.safetensors"])[0].lfs.sha256 + '"'
    )
    assert (large["X-Linked-Size"], large["X-Repo-Commit"]) == ("4096", repo)
    assert (small["ETag"], small["X-Linked-Etag"]) == (f'"{row.blob_id}"', None)


# Failures


def test_429_is_retried_after_the_time_the_server_asks_for(api, server, folder, waits):
    api.create_repo("lab/model")
    server.fail(r"POST .*/preupload/", status=429, headers={"Retry-After": "7"})
    api.upload_folder(repo_id="lab/model", folder_path=folder)
    assert waits == [8.0]
    assert server.faults.left() == []


def test_503_during_an_upload_is_retried_and_given_up_in_the_end(api, server, folder, waits):
    api.create_repo("lab/model")
    server.fail(r"PUT /-/lfs/", status=503, times=2)
    api.upload_folder(repo_id="lab/model", folder_path=folder)
    server.fail(r"POST .*/preupload/", status=503, times=None)
    with pytest.raises(errors.HfHubHTTPError) as caught:
        api.upload_folder(repo_id="lab/model", folder_path=folder)
    assert caught.value.response.status_code == 503
    assert sum(seen.status == 503 for seen in server.requests) == 2 + 6


def test_an_expired_upload_link_is_an_error_of_the_upload(api, server, folder, waits):
    api.create_repo("lab/model")
    server.fail(r"PUT /-/lfs/", status=403)
    with pytest.raises(RuntimeError, match=r"model\.safetensors"):
        api.upload_folder(repo_id="lab/model", folder_path=folder)


def test_412_once_then_the_commit_goes_through(api, server, folder):
    api.create_repo("lab/model")
    server.fail(r"POST .*/commit/", status=412)
    with pytest.raises(errors.HfHubHTTPError):
        api.upload_folder(repo_id="lab/model", folder_path=folder)
    assert api.upload_folder(repo_id="lab/model", folder_path=folder).oid == api.model_info("lab/model").sha


def test_a_download_that_ends_early_is_tried_again(api, server, repo, tmp_path, waits):
    server.fail(r"GET .*/model\.safetensors", drop_after_bytes=1000, reset=False)
    path = api.hf_hub_download("lab/model", "model.safetensors", cache_dir=tmp_path / "cache")
    assert Path(path).read_bytes() == WEIGHTS
    assert sum(seen.method == "GET" for seen in server.requests) == 2


def test_a_download_that_is_reset_fails_and_leaves_no_half_file(api, server, repo, tmp_path, waits):
    """The client tries again after an early end but not after a reset: whoever downloads must do that."""
    server.fail(r"GET .*/model\.safetensors", drop_after_bytes=1000)
    download = {"repo_id": "lab/model", "filename": "model.safetensors", "cache_dir": tmp_path / "cache"}
    with pytest.raises(Exception, match="reset by peer"):
        api.hf_hub_download(**download)
    assert Path(api.hf_hub_download(**download)).read_bytes() == WEIGHTS


def test_a_truncated_body_is_noticed(api, server, repo, tmp_path, waits):
    server.fail(r"GET .*/model\.safetensors", truncate_bytes=1000, times=None)
    with pytest.raises(OSError, match="size"):
        api.hf_hub_download("lab/model", "model.safetensors", cache_dir=tmp_path / "cache", force_download=True)


def test_a_corrupted_body_keeps_its_length(server, repo):
    server.fail(r"GET .*/model\.safetensors", corrupt=True)
    _, body, _ = fetch(f"{server.url}/lab/model/resolve/main/model.safetensors")
    assert (len(body), body[0], body[1:]) == (len(WEIGHTS), WEIGHTS[0] ^ 0xFF, WEIGHTS[1:])


def test_a_commit_whose_answer_is_lost_has_happened(api, server, repo, folder):
    (folder / "new.txt").write_text("new")
    server.fail(r"POST .*/commit/", drop_after_bytes=0)
    with pytest.raises(Exception, match=r"(?i)reset|disconnect|peer"):
        api.upload_folder(repo_id="lab/model", folder_path=folder)
    assert len(api.list_repo_commits("lab/model")) == 3
    api.upload_folder(repo_id="lab/model", folder_path=folder)
    assert len(api.list_repo_commits("lab/model")) == 3


def test_latency_waits_before_answering(tmp_path):
    slept = []
    with HubServer(tmp_path / "hub", sleep=slept.append) as server:
        server.fail("GET /$", delay_seconds=3)
        assert fetch(f"{server.url}/", token=None)[0] == 200
    assert slept == [3]


def test_xet_is_refused_with_the_remedy(server, repo):
    status, body, _ = fetch(f"{server.url}/api/models/lab/model/xet-write-token/main")
    assert status == 404
    assert b"HF_HUB_DISABLE_XET=1" in body


# Pages, program, disk


def test_pages_list_and_escape(api, server):
    api.create_repo("lab/open")
    api.create_repo("lab/hidden", private=True)
    api.upload_file(repo_id="lab/open", path_in_repo="README.md", path_or_fileobj=b"# <script>alert(1)</script>")
    _, index, _ = fetch(f"{server.url}/", token=None)
    assert b"lab/open" in index
    assert b"lab/hidden" not in index
    assert b"lab/hidden" in fetch(f"{server.url}/")[1]
    status, page, headers = fetch(f"{server.url}/lab/open", token=None)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"&lt;script&gt;" in page
    assert b"<script>" not in page
    assert fetch(f"{server.url}/lab/open/commit/{api.model_info('lab/open').sha}", token=None)[0] == 200
    assert fetch(f"{server.url}/lab/hidden", token=None)[0] == 404


def test_a_repository_page_cannot_run_as_html(api, server):
    api.create_repo("lab/open")
    api.upload_file(repo_id="lab/open", path_in_repo="report.html", path_or_fileobj=b"<script>1</script>")
    headers = fetch(f"{server.url}/lab/open/resolve/main/report.html", token=None)[2]
    assert (headers["Content-Type"], headers["X-Content-Type-Options"]) == ("text/plain; charset=utf-8", "nosniff")


def test_what_was_pushed_is_there_after_a_restart(server, api, repo, tmp_path):
    with HubServer(tmp_path / "hub", tokens=("writer",)) as second:
        again = HfApi(endpoint=second.url, token="writer")
        assert again.model_info("lab/model").sha == repo
        assert not list((tmp_path / "hub" / "incoming").iterdir())


def test_log_and_failures_are_reachable_over_http(server):
    faults = json.dumps({"faults": [{"route": "GET /api/", "status": 500, "times": 1}]}).encode()
    assert fetch(f"{server.url}/-/faults", "PUT", token="reader", body=faults)[0] == 401
    assert fetch(f"{server.url}/-/faults", "PUT", body=faults)[0] == 200
    assert fetch(f"{server.url}/api/whoami-v2")[0] == 500
    seen = json.loads(fetch(f"{server.url}/-/requests")[1])
    assert [(row["path"], row["status"], row["authorized"]) for row in seen] == [("/api/whoami-v2", 500, True)]
    assert json.loads(fetch(f"{server.url}/-/requests", "DELETE")[1]) == []


@pytest.mark.parametrize("start", ["module", "folder", "file"])
def test_it_runs_as_a_program_from_a_flat_folder_of_links(tmp_path, start):
    flat = tmp_path / "mount"
    flat.mkdir()
    for source in PACKAGE.glob("*.py"):
        (flat / source.name).symlink_to(source)
    command = {"module": ["-m", "hub_server"], "folder": [str(flat)], "file": [str(flat / "__main__.py")]}[start]
    process = subprocess.Popen(
        [sys.executable, "-B", *command, "--root", str(tmp_path / "hub"), "--port", "0", "--token", "T"],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent) if start == "module" else ""},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]
        assert fetch(f"{url}/-/health", token=None)[:2] == (200, b"ok")
        assert json.loads(fetch(f"{url}/api/whoami-v2", token="T")[1])["name"] == "hatchery"
    finally:
        process.terminate()
        process.communicate()


def test_it_fits_a_config_map_and_needs_only_the_standard_library():
    files = list(PACKAGE.glob("*.py"))
    assert sum(file.stat().st_size for file in files) < 900_000
    assert all(len(file.read_text().splitlines()) <= 300 for file in files)
    imported = {
        name for file in files for name in re.findall(r"^(?:from|import) (\w+)", file.read_text(), re.MULTILINE)
    }
    assert imported <= set(sys.stdlib_module_names)


# Other libraries


@pytest.fixture(scope="module")
def ecosystem(tmp_path_factory):
    """What datasets and transformers saw, and the server's log, split where a scenario began."""
    pytest.importorskip("datasets")
    pytest.importorskip("transformers")
    work = tmp_path_factory.mktemp("ecosystem")
    environment = {
        **os.environ,
        "HF_TOKEN": "writer",
        "HF_HOME": str(work / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets counts its loads with a request to a storage bucket
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    with HubServer(work / "hub", tokens=("writer",)) as server:
        command = [sys.executable, str(HERE / "hub_clients.py"), str(work)]
        environment["HF_ENDPOINT"] = server.url
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        parts, name = {"load": []}, "load"
        for seen in server.requests:
            if seen.path.startswith("/mark/"):
                name = seen.path.removeprefix("/mark/")
                parts[name] = []
            else:
                parts[name].append(seen)
        return json.loads(done.stdout.splitlines()[-1]), parts


def test_load_dataset_gives_back_the_rows_whole_streamed_and_after_push_to_hub(ecosystem):
    seen, _ = ecosystem
    assert (seen["loaded"], seen["streamed"], seen["pushed"]) == (True, True, True)


def test_streaming_reads_parquet_by_ranges(ecosystem):
    _, log = ecosystem
    ranges = [seen for seen in log["streaming"] if seen.method == "GET" and seen.path.endswith(".parquet")]
    assert ranges
    assert all(seen.status == 206 and seen.range for seen in ranges)


def test_a_tokenizer_and_a_configuration_come_back_from_the_hub(ecosystem):
    seen, log = ecosystem
    assert (seen["same_ids"], seen["eos"], seen["layers"]) == (True, "<|end|>", 1)
    assert any(seen.line.endswith("/tokenizer.json") for seen in log["tokenizer"])


def test_no_client_left_the_endpoint(ecosystem):
    seen, _ = ecosystem
    assert seen["strayed"] == []
