"""Pushes a folder to the Hub as one commit, or none when nothing changed.

The repository mirrors the folder: files that are gone from the folder are deleted. A push is idempotent: it compares
the folder with the Hub first, so retrying after any failure ends at the same commit.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hatchery_api.conditions import Reason
from hatchery_api.placement import Hub
from hatchery_api.status import HubRevision
from hatchery_jobs.hub.responses import PushTarget, RepoType, push_errors
from hatchery_jobs.runtime import RECORD, DataError, RetryableError, SpecError, retry_delay

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

PUBLIC_ENDPOINT: Final = "https://huggingface.co"
"""The default Hub, and the only one to which uploads use Xet."""

ATTEMPTS: Final = 4
"""Pushes attempted in one pod; the client retries single requests on its own."""

FIRST_WAIT_SECONDS: Final = 2.0
"""Delay before the second attempt; doubles with each further one."""

MAX_WAIT_SECONDS: Final = 120.0
"""A longer `Retry-After` fails the attempt: the Job's backoff waits instead of the pod."""

TIMEOUT_SECONDS: Final = 300.0
"""Read timeout of a connection; the client has none of its own."""

KEPT_FILES: Final = frozenset({".gitattributes"})
"""Files of the repository that the Hub owns; a push keeps them."""


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
    """Makes the branch of the repository hold exactly the files of a folder, with retries; returns the commit.

    Args:
        local_folder: The complete artifact.
        hub: `spec.hub`.
        repo_type: Type of the repository.
        message: First line of the commit.
        endpoint: URL of the Hub; default: the spec's, else the public one.
        token: Default: `HF_TOKEN` of the environment.
        sleep: Waits between attempts.

    Raises:
        SpecError: the Hub rejects the push.
        DataError: the folder cannot be pushed.
        RetryableError: the Hub was unreachable, overloaded or had a conflicting commit in all `ATTEMPTS`.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return push_once(local_folder, hub, repo_type, message, endpoint=endpoint, token=token)
        except RetryableError as problem:
            wait = retry_delay(attempt, FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS, retry_after=problem.wait_seconds)
            if attempt == ATTEMPTS or wait > MAX_WAIT_SECONDS:
                raise
            sleep(wait)
    raise AssertionError("unreachable: the last attempt returns or raises")


def check_writable(hub: Hub, repo_type: RepoType, *, endpoint: str | None = None) -> None:
    """Checks before hours of work that the token may write to the repository; creates the repository if it is missing.

    Raises:
        SpecError: the token is missing or may not write.
        RetryableError: the Hub does not answer, so the token remains unchecked.
    """
    from huggingface_hub import HfApi

    target = PushTarget(hub, repo_type, (endpoint or hub.endpoint or PUBLIC_ENDPOINT).rstrip("/"))
    secret = _token(target)
    with _quiet_client(target.endpoint), push_errors(target):
        api = HfApi(endpoint=target.endpoint, token=secret, library_name="hatchery")
        api.create_repo(**target.repo, private=hub.private, exist_ok=True)
        api.auth_check(**target.repo, write=True)
        _check_visibility(target, private=bool(api.repo_info(**target.repo).private))


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
    """One attempt of `push_folder`; moves `tag`, if given, to the commit.

    Raises:
        SpecError: the Hub rejects the push.
        DataError: the folder cannot be pushed.
        RetryableError: the Hub was unreachable, overloaded or had a conflicting commit.
    """
    target = PushTarget(hub, repo_type, (endpoint or hub.endpoint or PUBLIC_ENDPOINT).rstrip("/"))
    secret = token or _token(target)
    with _quiet_client(target.endpoint), push_errors(target):
        revision = _commit(local_folder, target, message, secret)
        if tag is not None:
            _move_tag(tag, revision.revision, target, secret)
    return revision


def _token(target: PushTarget) -> str:
    secret = os.environ.get("HF_TOKEN", "").strip()
    if not secret:
        raise SpecError(
            Reason.HUB_UNAUTHORIZED,
            f"Cannot push to the {target.name}: no token. Put one with write permission into a Secret and name it in "
            "spec.hub.tokenSecret.",
        )
    return secret


def _commit(folder: Path, target: PushTarget, message: str, token: str) -> HubRevision:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_session
    from huggingface_hub.hf_api import RepoFile

    get_session().timeout = TIMEOUT_SECONDS  # the client it makes after a lost connection has none
    api = HfApi(endpoint=target.endpoint, token=token, library_name="hatchery")
    files = _files(folder)
    place = target.repo
    api.create_repo(**place, private=target.hub.private, exist_ok=True)
    if target.hub.revision != "main":
        api.create_branch(**place, branch=target.hub.revision, exist_ok=True)
    info = api.repo_info(**place, revision=target.hub.revision)
    _check_visibility(target, private=bool(info.private))
    rows = api.list_repo_tree(**place, recursive=True, revision=info.sha)
    remote = {row.path: row for row in rows if isinstance(row, RepoFile)}
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationDelete(path, is_folder=False) for path in sorted(remote.keys() - files.keys() - KEPT_FILES)),
        *(CommitOperationAdd(path, file) for path, file in files.items() if not _is_equal(file, remote.get(path))),
    ]
    revision = str(info.sha)
    if operations:
        # without a parent, concurrent commits could mix, and the repository would match neither folder
        revision = api.create_commit(
            **place,
            operations=operations,
            commit_message=message,
            revision=target.hub.revision,
            parent_commit=revision,
        ).oid
    return HubRevision(repo=target.hub.repo, revision=revision, url=target.commit_url(revision))


def _move_tag(tag: str, revision: str, target: PushTarget, token: str) -> None:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=target.endpoint, token=token, library_name="hatchery")
    place = target.repo
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(**place).tags}
    if tags.get(tag) == revision:
        return
    if tag in tags:
        api.delete_tag(**place, tag=tag)
    api.create_tag(**place, tag=tag, revision=revision)


def _is_equal(file: Path, row: "RepoFile | None") -> bool:
    """Whether the file on the Hub has equal content: LFS files are compared by sha256, others by git blob id."""
    size = file.stat().st_size
    if row is None or size != row.size:
        return False
    if row.lfs is not None:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == row.lfs.sha256
    content = b"blob %d\0" % size + file.read_bytes()
    return hashlib.sha1(content, usedforsecurity=False).hexdigest() == row.blob_id


def _files(folder: Path) -> dict[str, Path]:
    """Path in the repository → file; leaves out the run's record, which names hosts and differs between equal runs.

    Raises:
        DataError: the folder is empty, or holds a link, whose target may be a secret of the pod.
    """
    found = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    files = {path.relative_to(folder).as_posix(): path for path in found if path.relative_to(folder).parts[0] != RECORD}
    links = [name for name, path in files.items() if path.is_symlink()]
    if links or not files:
        fault = f"{links[0]} is a symbolic link" if links else "it is empty"
        raise DataError(
            Reason.ARTIFACT_CORRUPT,
            f"The artifact folder {folder} cannot be pushed: {fault}. Delete it so that the stage rebuilds it.",
        )
    return files


def _check_visibility(target: PushTarget, *, private: bool) -> None:
    if target.hub.private and not private:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.hub.private is true, but the {target.name} is public; nothing was pushed. Make it "
            "private on the Hub, name another spec.hub.repo, or set spec.hub.private to false.",
        )


@contextmanager
def _quiet_client(endpoint: str) -> Iterator[None]:
    """Turns off the client's progress bars and telemetry, and Xet except on the public Hub.

    Sets the library's constants, because it reads its environment only on import.
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
