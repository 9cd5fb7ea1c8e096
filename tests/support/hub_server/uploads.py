"""Uploads: which way a file goes, large files by the LFS protocol, and commits."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from .router import API, WEB, Access, Hub, route
from .store import MAIN, Commit, Entry, Repo, git_blob_id, lfs_pointer
from .wire import Problem, Request, Response, answer, entry_not_found, revision_not_found

LARGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("7z", "arrow", "bin", "bz2", "gguf", "gz", "h5", "model", "npy", "npz", "onnx", "parquet", "pickle"),
        *("pkl", "pt", "pth", "safetensors", "tar", "tgz", "wasm", "xz", "zip", "zst"),
    )
)
LARGE_BYTES = 10 << 20
"""From this size on every file is a large file, as on the Hub."""


@route("POST", r"/api/validate-yaml")
def validate_card(_hub: Hub, request: Request) -> Response:
    """Accepts every card whose front matter is closed; the YAML itself is not read."""
    content = str(request.json().get("content", ""))
    if content.startswith("---\n") and "\n---" not in content[3:]:
        return answer({"errors": [{"message": "The metadata block is not closed"}], "warnings": []}, 400)
    return answer({"errors": [], "warnings": []})


@route("POST", rf"{API}/preupload/(?P<revision>[^/]+)", Access.WRITE)
def plan_upload(hub: Hub, request: Request) -> Response:
    """Says how each file is to be sent, and its present id so that unchanged files are not sent."""
    repo = hub.repo(request)
    commit = hub.store.resolve(repo, request.params["revision"])
    return answer({"files": [_plan(commit, file) for file in request.json().get("files", [])]})


def _plan(commit: Commit, file: dict[str, Any]) -> dict[str, Any]:
    path, size = str(file["path"]), int(file["size"])
    binary = b"\0" in base64.b64decode(file.get("sample", ""))
    large = size > 0 and (PurePosixPath(path).suffix in LARGE_SUFFIXES or size > LARGE_BYTES or binary)
    present = commit.files.get(path)
    oid = {"oid": present.etag} if present else {}
    return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, **oid}


@route("POST", rf"{WEB}\.git/info/lfs/objects/batch", Access.WRITE)
def plan_large_files(hub: Hub, request: Request) -> Response:
    """Tells where to send each large file that is not here yet."""
    repo = hub.repo(request)
    objects = request.json().get("objects", [])
    planned = [_plan_large(hub, request, repo, str(item["oid"]), int(item["size"])) for item in objects]
    return answer({"transfer": "basic", "objects": planned})


def _plan_large(hub: Hub, request: Request, repo: Repo, oid: str, size: int) -> dict[str, Any]:
    if hub.store.has_object(oid):
        return {"oid": oid, "size": size}
    base = f"{request.base_url}/-/lfs/{repo.kind}/{repo.id}"
    verify = {"href": f"{request.base_url}/{repo.web_path}.git/info/lfs/verify", "header": {}}
    upload: dict[str, Any] = {"href": _signed(hub, f"{base}/object/{oid}")}
    if hub.part_bytes is not None and size > hub.part_bytes:
        parts = range(1, -(-size // hub.part_bytes) + 1)
        links = {f"{part:05d}": _signed(hub, f"{base}/part/{oid}.{part}") for part in parts}
        upload = {
            "href": _signed(hub, f"{base}/join/{oid}"),
            "header": {"chunk_size": str(hub.part_bytes), **links},
        }
    return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}


def _signature(hub: Hub, path: str) -> str:
    return hmac.new(hub.secret, path.encode(), hashlib.sha256).hexdigest()


def _signed(hub: Hub, url: str) -> str:
    path = "/-/lfs/" + url.split("/-/lfs/")[1]
    return f"{url}?signature={_signature(hub, path)}"


def _check_signature(hub: Hub, request: Request) -> None:
    if not hmac.compare_digest(_signature(hub, request.path), request.argument("signature")):
        raise Problem(403, "The upload link has expired: ask for a new one")


SIGNED = r"/-/lfs/(?P<kind>[^/]+)/(?P<repo>[^/]+/[^/]+)"


@route("PUT", rf"{SIGNED}/object/(?P<oid>[0-9a-f]{{64}})", Access.SIGNED)
def receive_object(hub: Hub, request: Request) -> Response:
    """Takes a large file; another content than announced is refused."""
    _check_signature(hub, request)
    return _stored(hub.store.put_object(request.body, request.params["oid"]))


@route("PUT", rf"{SIGNED}/part/(?P<oid>[0-9a-f]{{64}})\.(?P<part>\d+)", Access.SIGNED)
def receive_part(hub: Hub, request: Request) -> Response:
    """Takes one part of a large file; a part is an object of its own, found again by its etag."""
    _check_signature(hub, request)
    return _stored(hub.store.put_object(request.body))


def _stored(sha256: str) -> Response:
    return answer({}, headers={"ETag": f'"{sha256}"'})


@route("POST", rf"{SIGNED}/join/(?P<oid>[0-9a-f]{{64}})", Access.SIGNED)
def join_parts(hub: Hub, request: Request) -> Response:
    """Makes one large file of its parts."""
    _check_signature(hub, request)
    parts = sorted(request.json().get("parts", []), key=lambda part: int(part["partNumber"]))
    etags = [str(part["etag"]).strip('"') for part in parts]
    if not all(hub.store.has_object(etag) for etag in etags):
        raise Problem(400, "A part is missing")
    hub.store.put_object(_Joined(hub, etags), request.params["oid"])
    return answer({})


class _Joined(io.RawIOBase):
    """Objects, one after the other, as one stream."""

    def __init__(self, hub: Hub, names: Iterable[str]) -> None:
        super().__init__()
        self._chunks = self._read_all(hub, names)

    def read(self, size: int = -1, /) -> bytes:
        return next(self._chunks, b"") if size else b""

    @staticmethod
    def _read_all(hub: Hub, names: Iterable[str]) -> Iterator[bytes]:
        for name in names:
            with hub.store.object_path(name).open("rb") as file:
                while chunk := file.read(1 << 20):
                    yield chunk


@route("POST", rf"{WEB}\.git/info/lfs/verify", Access.WRITE)
def verify_object(hub: Hub, request: Request) -> Response:
    """Confirms that a large file is here in full."""
    hub.repo(request)
    body = request.json()
    oid = str(body.get("oid"))
    if not hub.store.has_object(oid) or hub.store.object_path(oid).stat().st_size != body.get("size"):
        raise Problem(404, f"Object {oid} is not here in full")
    return answer({})


@route("POST", rf"{API}/commit/(?P<revision>[^/]+)", Access.WRITE)
def commit(hub: Hub, request: Request) -> Response:
    """Applies one commit to a branch, all of it or nothing."""
    lines = [_line(raw) for raw in request.body.read().splitlines() if raw.strip()]
    header = next((value for key, value in lines if key == "header"), None)
    if header is None or not header.get("summary"):
        raise Problem(400, "A commit needs a header with a summary")
    with hub.store.lock:
        repo = hub.repo(request)
        branch, pull = _target(hub, repo, request)
        head = hub.store.resolve(repo, branch)
        parent = header.get("parentCommit")
        if parent and not head.id.startswith(str(parent)):
            raise Problem(412, "A commit has happened since. Please refresh and try again.")
        if pull is not None:
            repo = hub.store.update(repo, heads={**repo.heads, pull: head.id})
        draft = Commit(
            files=_apply(hub, head, [line for line in lines if line[0] != "header"]),
            title=str(header["summary"]),
            message=str(header.get("description") or ""),
            author=request.caller.name if request.caller else "",
        )
        new = hub.store.commit(repo, pull or branch, draft)
    page = f"{request.base_url}/{repo.web_path}"
    extra = {"pullRequestUrl": f"{page}/discussions/{pull.rsplit('/', 1)[1]}"} if pull else {}
    return answer(
        {"success": True, "commitOid": new.id, "commitUrl": f"{page}/commit/{new.id}", "hookOutput": "", **extra}
    )


def _line(raw: bytes) -> tuple[str, dict[str, Any]]:
    try:
        line = json.loads(raw)
        return str(line["key"]), dict(line["value"])
    except (ValueError, KeyError, TypeError) as error:
        raise Problem(400, f"A line of the commit cannot be read: {error}") from error


def _target(hub: Hub, repo: Repo, request: Request) -> tuple[str, str | None]:
    """The branch to start from, and the pull request to make of it."""
    branch = request.params["revision"]
    if branch not in repo.heads:
        hub.store.resolve(repo, branch)
        raise Problem(400, f"Not a branch: {branch}")
    if not request.flag("create_pr"):
        return branch, None
    if branch != MAIN and branch.startswith("refs/"):
        raise revision_not_found(branch)
    number = 1 + sum(name.startswith("refs/pr/") for name in repo.heads)
    return branch, f"refs/pr/{number}"


def _apply(hub: Hub, head: Commit, lines: list[tuple[str, dict[str, Any]]]) -> dict[str, Entry]:
    files = dict(head.files)
    for key, value in lines:
        path = str(value.get("path", ""))
        if key == "file":
            files[_checked(path)] = _small(hub, value)
        elif key == "lfsFile":
            files[_checked(path)] = _large(hub, str(value.get("oid")))
        elif key == "deletedFile":
            if files.pop(path, None) is None:
                raise _missing(path, head)
        elif key == "deletedFolder":
            inside = [name for name in files if name.startswith(path.rstrip("/") + "/")]
            if not inside:
                raise _missing(path, head)
            for name in inside:
                del files[name]
        else:
            raise Problem(400, f"Unknown operation: {key!r}")
    return files


def _missing(path: str, head: Commit) -> Problem:
    problem = entry_not_found(path, head.id)
    problem.headers["X-Error-Message"] = problem.message = "A file with this name doesn't exist"
    return problem


def _checked(path: str) -> str:
    parts = path.split("/")
    if not path or any(part in {"", ".", "..", ".git"} for part in parts) or re.search(r"[\x00-\x1f\\]", path):
        raise Problem(400, f"Invalid path: {path!r}")
    return path


def _small(hub: Hub, value: dict[str, Any]) -> Entry:
    text = str(value.get("content", ""))
    try:
        content = base64.b64decode(text, validate=True) if value.get("encoding") == "base64" else text.encode()
    except binascii.Error as error:
        raise Problem(400, f"{value.get('path')}: the content is not base64") from error
    return Entry(hub.store.put_object(io.BytesIO(content)), len(content), git_blob_id(content), lfs=False)


def _large(hub: Hub, oid: str) -> Entry:
    if not hub.store.has_object(oid):
        raise Problem(400, f"The large file {oid} was not uploaded")
    size = hub.store.object_path(oid).stat().st_size
    return Entry(oid, size, git_blob_id(lfs_pointer(oid, size)), lfs=True)
