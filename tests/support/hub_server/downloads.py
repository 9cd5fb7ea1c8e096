"""Reading: trees, path lookups, history and the files themselves, whole or in ranges."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlencode

from .router import API, WEB, Access, Hub, route
from .store import Commit, Entry, Repo
from .wire import FileSlice, Problem, Request, Response, answer, entry_not_found

ONE_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@route("GET", rf"{API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?")
def list_tree(hub: Hub, request: Request) -> Response:
    """The files and folders below a path."""
    repo = hub.repo(request)
    commit = hub.store.resolve(repo, request.params["revision"])
    folder = request.params.get("path", "").strip("/")
    prefix = f"{folder}/" if folder else ""
    inside = [path for path in commit.files if path.startswith(prefix)]
    if folder and not inside:
        raise entry_not_found(folder, commit.id)
    recursive = request.flag("recursive")
    shown = [path for path in inside if recursive or "/" not in path[len(prefix) :]]
    folders = {parent for path in inside for parent in _parents(path, prefix)}
    if not recursive:
        folders = {path for path in folders if "/" not in path[len(prefix) :]}
    rows = _rows(hub, repo, commit, [*sorted(folders), *shown], expand=request.flag("expand"))
    return _page(hub, request, rows)


@route("POST", rf"{API}/paths-info/(?P<revision>[^/]+)")
def look_up_paths(hub: Hub, request: Request) -> Response:
    """The same rows for the named paths; absent ones are left out. The body is a form."""
    repo = hub.repo(request)
    commit = hub.store.resolve(repo, request.params["revision"])
    form = parse_qs(request.body.read().decode())
    folders = {parent for path in commit.files for parent in _parents(path, "")}
    asked = [path for path in form.get("paths", []) if path in commit.files or path in folders]
    return answer(_rows(hub, repo, commit, asked, expand=form.get("expand", [""])[0].lower() == "true"))


@route("GET", rf"{API}/commits/(?P<revision>[^/]+)")
def list_commits(hub: Hub, request: Request) -> Response:
    """The history of a revision, newest first."""
    repo = hub.repo(request)
    history = hub.store.history(repo, hub.store.resolve(repo, request.params["revision"]))
    rows = [
        {
            "id": commit.id,
            "title": commit.title,
            "message": commit.message,
            "date": commit.date,
            "authors": [{"user": commit.author}],
        }
        for commit in history
    ]
    return _page(hub, request, rows)


@route("GET", rf"{API}/xet-(?:read|write)-token/(?P<revision>[^/]+)", Access.IDENTITY)
def refuse_xet(_hub: Hub, _request: Request) -> Response:
    """Chunked storage is not offered; the message tells the one thing to do."""
    raise Problem(404, "This Hub has no Xet storage: set HF_HUB_DISABLE_XET=1 before the client starts")


@route("GET", rf"{WEB}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def download(hub: Hub, request: Request) -> Response:
    """One file, with the headers that clients keep their cache by."""
    repo = hub.repo(request)
    commit = hub.store.resolve(repo, request.params["revision"])
    path = request.params["path"]
    entry = commit.files.get(path)
    if entry is None:
        raise entry_not_found(path, commit.id)
    headers = _file_headers(commit, entry)
    start, end, status = _span(request.headers.get("Range", ""), entry.size)
    if status == 416:
        raise Problem(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{entry.size}"})
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{entry.size}"
    body = FileSlice(hub.store.object_path(entry.sha256), start, end - start)
    return Response(status, body, "text/plain; charset=utf-8" if not entry.lfs else "application/octet-stream", headers)


def _file_headers(commit: Commit, entry: Entry) -> dict[str, str]:
    headers = {
        "X-Repo-Commit": commit.id,
        "ETag": f'"{entry.etag}"',
        "Accept-Ranges": "bytes",
        # Repositories hold pages that anyone pushed; a browser must not run them on this host.
        "X-Content-Type-Options": "nosniff",
    }
    if entry.lfs:
        headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
    return headers


def _span(header: str, size: int) -> tuple[int, int, int]:
    """Start, end (exclusive) and status for a Range header; several ranges are answered with the whole."""
    match = ONE_RANGE.fullmatch(header.strip())
    if match is None or match.groups() == ("", ""):
        return 0, size, 200
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= size or (first and last and int(last) < start):
        return 0, 0, 416
    return start, end, 206


def _parents(path: str, prefix: str) -> list[str]:
    """Every folder between the prefix and the file."""
    parts = path[len(prefix) :].split("/")[:-1]
    return [prefix + "/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _rows(hub: Hub, repo: Repo, commit: Commit, paths: Iterable[str], *, expand: bool) -> list[dict[str, Any]]:
    rows = [_row(commit, path) for path in paths]
    if expand:
        history = list(hub.store.history(repo, commit))
        for row in rows:
            row["lastCommit"] = _last_change(history, row["path"])
    return rows


def _row(commit: Commit, path: str) -> dict[str, Any]:
    entry = commit.files.get(path)
    if entry is None:
        inside = [(name, item.sha256) for name, item in commit.files.items() if name.startswith(f"{path}/")]
        digest = hashlib.sha1(repr(inside).encode(), usedforsecurity=False).hexdigest()
        return {"type": "directory", "path": path, "size": 0, "oid": digest}
    row: dict[str, Any] = {"type": "file", "path": path, "size": entry.size, "oid": entry.blob_id}
    if entry.lfs:
        row["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
    return row


def _last_change(history: Sequence[Commit], path: str) -> dict[str, str]:
    """The newest commit after which the path differs from before."""
    now = _row(history[0], path)["oid"]
    changed = history[0]
    for older in history[1:]:
        if _row(older, path)["oid"] != now:
            break
        changed = older
    return {"id": changed.id, "title": changed.title, "date": changed.date}


def _page(hub: Hub, request: Request, rows: list[dict[str, Any]]) -> Response:
    """One page of rows, with a link to the next."""
    size = min(int(request.argument("limit", "0")) or hub.page_size, hub.page_size)
    start = int(request.argument("cursor", "0") or 0)
    headers = {}
    if start + size < len(rows):
        kept = {name: values[0] for name, values in parse_qs(request.query).items()}
        query = urlencode({**kept, "cursor": start + size})
        headers["Link"] = f'<{request.base_url}{request.path}?{query}>; rel="next"'
    return answer(rows[start : start + size], headers=headers)
