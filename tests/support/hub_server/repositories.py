"""Identity, repositories, their settings, branches and tags."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .router import API, Access, Hub, route
from .store import MAIN, Commit
from .wire import Problem, Request, Response, answer, revision_not_found

TYPES = {None: "models", "model": "models", "dataset": "datasets", "space": "spaces"}
PRIVATE = {"private": True, "public": False}


@route("GET", r"/api/whoami-v2", Access.IDENTITY)
def who_am_i(hub: Hub, request: Request) -> Response:
    """The caller's name and organizations."""
    caller = request.caller
    assert caller is not None
    return answer(
        {
            "type": "user",
            "id": caller.name,
            "name": caller.name,
            "fullname": caller.name,
            "email": f"{caller.name}@hub.test",
            "orgs": [{"name": name, "type": "org"} for name in sorted(hub.namespaces or ()) if name != caller.name],
            "auth": {"accessToken": {"displayName": "test", "role": "write" if caller.can_write else "read"}},
        }
    )


@route("POST", r"/api/repos/create", Access.WRITE)
def create_repo(hub: Hub, request: Request) -> Response:
    """Makes a repository; where it exists, a 409 that still tells the address (`exist_ok` reads it)."""
    body = request.json()
    kind, repo_id = _named(request, body)
    private = PRIVATE.get(body.get("visibility", ""), bool(body.get("private")))
    namespace = repo_id.split("/")[0]
    if hub.namespaces is not None and namespace not in {*hub.namespaces, _name(request)}:
        raise Problem(403, f"You don't have the rights to create a {kind[:-1]} under the namespace {namespace!r}")
    try:
        repo = hub.store.create(kind, repo_id, private=private, author=_name(request))
        status, extra = 200, {}
    except Problem as problem:
        if problem.status != 409:
            raise
        repo, status, extra = hub.store.repo(kind, repo_id), 409, {"error": problem.message}
    url = f"{request.base_url}/{repo.web_path}"
    return answer({"url": url, "name": repo.id, "id": repo.id, **extra}, status)


@route("DELETE", r"/api/repos/delete", Access.WRITE)
def delete_repo(hub: Hub, request: Request) -> Response:
    """Removes a repository."""
    hub.store.delete(hub.store.repo(*_named(request, request.json())))
    return answer({})


@route("POST", r"/api/repos/move", Access.WRITE)
def move_repo(hub: Hub, request: Request) -> Response:
    """Renames a repository."""
    body = request.json()
    repo = hub.store.repo(_kind(body), str(body.get("fromRepo")))
    hub.store.move(repo, str(body.get("toRepo")))
    return answer({})


@route("PUT", rf"{API}/settings", Access.WRITE)
def change_settings(hub: Hub, request: Request) -> Response:
    """Changes who can see a repository."""
    visibility = request.json().get("visibility")
    with hub.store.lock:
        repo = hub.repo(request)
        if visibility is not None and visibility not in PRIVATE:
            raise Problem(400, f"Invalid visibility: {visibility!r}")
        if visibility is not None:
            repo = hub.store.update(repo, private=PRIVATE[visibility])
    return answer({"private": repo.private})


@route("GET", rf"{API}/auth-check")
def check_access(hub: Hub, request: Request) -> Response:
    """Says nothing when the caller may read the repository."""
    hub.repo(request)
    return answer({})


@route("GET", rf"{API}/auth-check/write", Access.WRITE)
def check_write_access(hub: Hub, request: Request) -> Response:
    """Says nothing when the caller may write to the repository."""
    hub.repo(request)
    return answer({})


@route("GET", API)
@route("GET", rf"{API}/revision/(?P<revision>[^/]+)")
def repo_info(hub: Hub, request: Request) -> Response:
    """A repository at one revision, with its file names."""
    repo = hub.repo(request)
    commit = hub.store.resolve(repo, request.params.get("revision", MAIN))
    return answer(
        {
            "_id": commit.id[:24],
            "id": repo.id,
            "author": repo.namespace,
            "sha": commit.id,
            "lastModified": commit.date,
            "createdAt": repo.created,
            "private": repo.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": _siblings(commit, blobs=request.flag("blobs")),
        }
    )


@route("GET", rf"{API}/refs")
def list_refs(hub: Hub, request: Request) -> Response:
    """Branches, tags and, when asked for, pull requests."""
    repo = hub.repo(request)
    pulls = {name: sha for name, sha in repo.heads.items() if name.startswith("refs/")}
    branches = {name: sha for name, sha in repo.heads.items() if name not in pulls}
    found: dict[str, Any] = {
        "branches": [_ref(name, f"refs/heads/{name}", sha) for name, sha in branches.items()],
        "converts": [],
        "tags": [_ref(name, f"refs/tags/{name}", sha) for name, sha in repo.tags.items()],
    }
    if request.flag("include_prs"):
        found["pullRequests"] = [_ref(name, name, sha) for name, sha in pulls.items()]
    return answer(found)


@route("POST", rf"{API}/branch/(?P<branch>[^/]+)", Access.WRITE)
def create_branch(hub: Hub, request: Request) -> Response:
    """A new branch from a revision."""
    branch = request.params["branch"]
    if branch.startswith("refs/"):
        raise Problem(400, f"Invalid reference for a branch: {branch}")
    start = str(request.json().get("startingPoint") or MAIN)
    with hub.store.lock:
        repo = hub.repo(request)
        if branch in repo.heads:
            raise Problem(409, f"Reference already exists: {branch}")
        commit = hub.store.resolve(repo, start)
        hub.store.update(repo, heads={**repo.heads, branch: commit.id})
    return answer({}, 201)


@route("DELETE", rf"{API}/branch/(?P<branch>[^/]+)", Access.WRITE)
def delete_branch(hub: Hub, request: Request) -> Response:
    """Removes a branch; main stays."""
    branch = request.params["branch"]
    if branch == MAIN:
        raise Problem(403, "The branch main cannot be deleted")
    with hub.store.lock:
        repo = hub.repo(request)
        hub.store.update(repo, heads=_without(repo.heads, branch))
    return answer({})


@route("POST", rf"{API}/tag/(?P<revision>[^/]+)", Access.WRITE)
def create_tag(hub: Hub, request: Request) -> Response:
    """Names a revision."""
    tag = str(request.json().get("tag") or "")
    with hub.store.lock:
        repo = hub.repo(request)
        if not tag or tag in repo.tags:
            raise Problem(409 if tag else 400, f"Tag reference exists already: {tag!r}")
        commit = hub.store.resolve(repo, request.params["revision"])
        hub.store.update(repo, tags={**repo.tags, tag: commit.id})
    return answer({})


@route("DELETE", rf"{API}/tag/(?P<tag>[^/]+)", Access.WRITE)
def delete_tag(hub: Hub, request: Request) -> Response:
    """Forgets a name."""
    with hub.store.lock:
        repo = hub.repo(request)
        hub.store.update(repo, tags=_without(repo.tags, request.params["tag"]))
    return answer({})


@route("POST", rf"{API}/super-squash/(?P<branch>[^/]+)", Access.WRITE)
def squash(hub: Hub, request: Request) -> Response:
    """Leaves one commit of a branch, without ancestors."""
    branch = request.params["branch"]
    with hub.store.lock:
        repo = hub.repo(request)
        if branch not in repo.heads:
            raise revision_not_found(branch)
        old = hub.store.resolve(repo, branch)
        title = str(request.json().get("message") or f"Super-squash branch '{branch}'")
        alone = replace(old, parent=None, title=title, message="", author=_name(request))
        hub.store.update(repo, heads={**repo.heads, branch: hub.store.write_commit(repo, alone).id})
    return answer({})


def _named(request: Request, body: dict[str, Any]) -> tuple[str, str]:
    namespace = body.get("organization") or _name(request)
    return _kind(body), f"{namespace}/{body.get('name')}"


def _kind(body: dict[str, Any]) -> str:
    if body.get("type") not in TYPES:
        raise Problem(400, f"Invalid repository type: {body.get('type')!r}")
    return TYPES[body.get("type")]


def _name(request: Request) -> str:
    return request.caller.name if request.caller else "anonymous"


def _ref(name: str, ref: str, sha: str) -> dict[str, str]:
    return {"name": name, "ref": ref, "targetCommit": sha}


def _without(names: Any, name: str) -> dict[str, str]:
    if name not in names:
        raise revision_not_found(name)
    return {key: value for key, value in names.items() if key != name}


def _siblings(commit: Commit, *, blobs: bool) -> list[dict[str, Any]]:
    siblings = []
    for path, entry in commit.files.items():
        sibling: dict[str, Any] = {"rfilename": path}
        if blobs:
            sibling |= {"size": entry.size, "blobId": entry.blob_id}
            if entry.lfs:
                sibling["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
        siblings.append(sibling)
    return siblings
