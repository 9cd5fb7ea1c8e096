"""Pushes an artifact's folder to the Hub: one commit, and none when nothing changed.

The repository is a projection of the folder: files that left the folder leave the repository. Running a push again,
after any failure, ends at the same commit: what the Hub already has is found out first.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hatchery_api.conditions import Reason
from hatchery_api.placement import Hub
from hatchery_api.status import HubRevision
from hatchery_jobs.hub.responses import RepoType, Target, client_errors, translated
from hatchery_jobs.runtime import RECORD, DataError, RetryableError, SpecError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

PUBLIC_ENDPOINT: Final = "https://huggingface.co"
"""The Hub when no other is named; the only one whose chunked (Xet) uploads are used."""

ATTEMPTS: Final = 4
"""Pushes tried in one pod, on top of the client's own retries of single requests."""

FIRST_WAIT_SECONDS: Final = 2.0
"""Before the second attempt; doubled for each further one."""

MAX_WAIT_SECONDS: Final = 120.0
"""A Hub that asks for more patience than this gets it from the Job's back-off, not from a waiting pod."""

TIMEOUT_SECONDS: Final = 300.0
"""Silence on a connection before it counts as lost; the client alone would wait for ever."""

KEPT_FILES: Final = frozenset({".gitattributes"})
"""Files of the repository that belong to the Hub and stay although no artifact holds them."""


def push_folder(
    local_folder: Path,
    hub: Hub,
    repo_type: RepoType,
    message: str,
    *,
    endpoint: str | None = None,
    token: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> HubRevision:
    """Makes the repository's branch hold exactly the files of a folder and returns the commit that does.

    Args:
        local_folder: The finished artifact.
        hub: `spec.hub`.
        repo_type: What the Hub shows it as.
        message: First line of the commit.
        endpoint: URL of the Hub; default: the spec's, else the public one.
        token: Default: `HF_TOKEN` of the environment.
        sleep: Waits between attempts.

    A RetryableError means: the Hub was away, overloaded or changed under our hands in every one of `ATTEMPTS`.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return push_once(local_folder, hub, repo_type, message, endpoint=endpoint, token=token)
        except RetryableError as problem:
            wait = max(FIRST_WAIT_SECONDS * 2 ** (attempt - 1), problem.wait_seconds)
            if attempt == ATTEMPTS or wait > MAX_WAIT_SECONDS:
                raise
            sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def check_writable(hub: Hub, repo_type: RepoType, *, endpoint: str | None = None) -> None:
    """Asks before hours of work whether the token may write to the repository, which is made if it is missing.

    Raises:
        SpecError: it may not, or there is no token.
        RetryableError: the Hub does not answer, which says nothing about the token.
    """
    from huggingface_hub import HfApi

    target = Target(hub, repo_type, (endpoint or hub.endpoint or PUBLIC_ENDPOINT).rstrip("/"))
    secret = _token(target)
    with _quiet_client(target.endpoint), _problems(target):
        api = HfApi(endpoint=target.endpoint, token=secret, library_name="hatchery")
        place: dict[str, Any] = {"repo_id": hub.repo, "repo_type": repo_type}
        api.create_repo(**place, private=hub.private, exist_ok=True)
        api.auth_check(**place, write=True)
        _check_visibility(target, private=bool(api.repo_info(**place).private))


def push_once(
    local_folder: Path,
    hub: Hub,
    repo_type: RepoType,
    message: str,
    *,
    tag: str | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> HubRevision:
    """One attempt of `push_folder`; a `tag` then points to the commit, wherever it pointed before.

    Raises:
        SpecError: the Hub refuses it, which no further attempt changes.
        DataError: the folder cannot be pushed.
        RetryableError: the Hub was away, overloaded or changed under our hands.
    """
    target = Target(hub, repo_type, (endpoint or hub.endpoint or PUBLIC_ENDPOINT).rstrip("/"))
    secret = token or _token(target)
    with _quiet_client(target.endpoint), _problems(target):
        revision = _commit(local_folder, target, message, secret)
        if tag is not None:
            _point(tag, revision.revision, target, secret)
    return revision


def _token(target: Target) -> str:
    secret = os.environ.get("HF_TOKEN", "").strip()
    if not secret:
        raise SpecError(
            Reason.HUB_UNAUTHORIZED,
            f"Cannot push to the {target.name}: there is no token. Put one that may write into a Secret and name it in "
            "spec.hub.tokenSecret.",
        )
    return secret


@contextmanager
def _problems(target: Target) -> Iterator[None]:
    """Turns the client's errors into ours where the Hub is the reason."""
    try:
        yield
    except client_errors() as error:
        if (problem := translated(error, target)) is None:
            raise
        raise problem from error


def _commit(folder: Path, target: Target, message: str, token: str) -> HubRevision:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_session
    from huggingface_hub.hf_api import RepoFile

    get_session().timeout = TIMEOUT_SECONDS  # a client made anew after a lost connection has none
    api = HfApi(endpoint=target.endpoint, token=token, library_name="hatchery")
    files = _files(folder)
    place: dict[str, Any] = {"repo_id": target.hub.repo, "repo_type": target.repo_type}
    api.create_repo(**place, private=target.hub.private, exist_ok=True)
    if target.hub.revision != "main":
        api.create_branch(**place, branch=target.hub.revision, exist_ok=True)
    info = api.repo_info(**place, revision=target.hub.revision)
    _check_visibility(target, private=bool(info.private))
    rows = api.list_repo_tree(**place, recursive=True, revision=info.sha)
    there = {row.path: row for row in rows if isinstance(row, RepoFile)}
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationDelete(path, is_folder=False) for path in sorted(there.keys() - files.keys() - KEPT_FILES)),
        *(CommitOperationAdd(path, file) for path, file in files.items() if not _same(file, there.get(path))),
    ]
    revision = str(info.sha)
    if operations:
        # Without its parent a commit could mix with somebody else's, and the repository would equal neither folder.
        place |= {"commit_message": message, "revision": target.hub.revision, "parent_commit": revision}
        revision = api.create_commit(**place, operations=operations).oid
    return HubRevision(repo=target.hub.repo, revision=revision, url=target.commit_url(revision))


def _point(tag: str, revision: str, target: Target, token: str) -> None:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=target.endpoint, token=token, library_name="hatchery")
    place: dict[str, Any] = {"repo_id": target.hub.repo, "repo_type": target.repo_type}
    there = {ref.name: ref.target_commit for ref in api.list_repo_refs(**place).tags}
    if there.get(tag) == revision:
        return
    if tag in there:
        api.delete_tag(**place, tag=tag)
    api.create_tag(**place, tag=tag, revision=revision)


def _same(file: Path, row: "RepoFile | None") -> bool:
    """Whether the Hub's file has the content of ours: large files are known by sha256, others by git's id."""
    size = file.stat().st_size
    if row is None or size != row.size:
        return False
    if row.lfs is not None:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == row.lfs.sha256
    content = b"blob %d\0" % size + file.read_bytes()
    return hashlib.sha1(content, usedforsecurity=False).hexdigest() == row.blob_id


def _files(folder: Path) -> dict[str, Path]:
    """Path in the repository → file, without the run's record, which names hosts and differs between equal runs.

    Links are refused: their targets may be secrets of the pod.
    """
    found = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    files = {path.relative_to(folder).as_posix(): path for path in found if path.relative_to(folder).parts[0] != RECORD}
    links = [name for name, path in files.items() if path.is_symlink()]
    if links or not files:
        fault = f"{links[0]} is a link" if links else "it holds no file"
        raise DataError(
            Reason.ARTIFACT_CORRUPT,
            f"The artifact folder {folder} cannot be pushed: {fault}. Delete it, so that the stage builds it again.",
        )
    return files


def _check_visibility(target: Target, *, private: bool) -> None:
    if target.hub.private and not private:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.hub.private is true, but the {target.name} exists and is public: nothing was pushed. Make it "
            "private on the Hub, name another spec.hub.repo, or set spec.hub.private to false.",
        )


@contextmanager
def _quiet_client(endpoint: str) -> Iterator[None]:
    """The client library without progress bars and telemetry, and with Xet only where it exists.

    The library reads its environment when it is imported, which may have happened long ago, so its constants are set.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars

    wanted = {
        "HF_HUB_DISABLE_XET": constants.HF_HUB_DISABLE_XET or endpoint != PUBLIC_ENDPOINT,
        "HF_HUB_DISABLE_TELEMETRY": True,
    }
    before = {name: getattr(constants, name) for name in wanted}
    if not are_progress_bars_disabled():
        disable_progress_bars()
    try:
        for name, value in wanted.items():
            setattr(constants, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(constants, name, value)
