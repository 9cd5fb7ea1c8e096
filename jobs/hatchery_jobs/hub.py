"""Pushes an artifact's folder to the Hub: one commit, and none when nothing changed.

The repository is a projection of the folder: files that left the folder leave the repository. Running a push again,
after any failure, ends at the same commit: what the Hub already has is found out first.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from hatchery_api.conditions import Reason
from hatchery_api.placement import Hub
from hatchery_api.status import HubRevision
from hatchery_jobs.artifacts import RECORD
from hatchery_jobs.errors import DataError, JobError, RetryableError, SpecError

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

RepoType = Literal["model", "dataset"]

_CONFLICT: Final = (
    RetryableError,
    Reason.HUB_UNAVAILABLE,
    "Somebody else changed, during the push,",
    "It is tried again; give each resource a spec.hub.repo or spec.hub.revision of its own.",
)
_AWAY: Final = (RetryableError, Reason.HUB_UNAVAILABLE, "Not available:", "It is tried again.")
_REFUSED: Final = (
    SpecError,
    Reason.INVALID_SPEC,
    "The Hub refuses the push to",
    "Correct spec.hub, or the card's fields if the message is about metadata.",
)
_ANSWERS: Final[Mapping[int, tuple[type[JobError], Reason, str, str]]] = {
    HTTPStatus.UNAUTHORIZED: (
        SpecError,
        Reason.HUB_UNAUTHORIZED,
        "Cannot push to",
        "The token is wrong or expired: put a valid one into the Secret named in spec.hub.tokenSecret.",
    ),
    HTTPStatus.FORBIDDEN: (
        SpecError,
        Reason.HUB_UNAUTHORIZED,
        "Cannot push to",
        "The token in spec.hub.tokenSecret may not write there: give it the permission, or name another spec.hub.repo.",
    ),
    HTTPStatus.NOT_FOUND: (
        SpecError,
        Reason.HUB_NOT_FOUND,
        "There is no",
        "Check the organisation and name in spec.hub.repo, spec.hub.revision, and that the token may see them.",
    ),
    HTTPStatus.TOO_MANY_REQUESTS: (
        RetryableError,
        Reason.HUB_UNAVAILABLE,
        "Too many requests for",
        "It is tried again; push less often or raise the account's rate limit.",
    ),
    HTTPStatus.CONFLICT: _CONFLICT,
    HTTPStatus.PRECONDITION_FAILED: _CONFLICT,
    HTTPStatus.REQUEST_TIMEOUT: _AWAY,
    HTTPStatus.SERVICE_UNAVAILABLE: _AWAY,
}
"""Status of an answer → policy, reason, what happened, what to do. All 5xx are one; others are refusals."""


@dataclass(frozen=True)
class _Target:
    """Where a push goes, as messages name it."""

    hub: Hub
    repo_type: RepoType
    endpoint: str

    @property
    def name(self) -> str:
        """The repository, its branch and its server."""
        return f"{self.repo_type} repository {self.hub.repo} ({self.hub.revision}) on {self.endpoint}"

    def commit_url(self, revision: str) -> str:
        """The page of a commit."""
        prefix = "datasets/" if self.repo_type == "dataset" else ""
        return f"{self.endpoint}/{prefix}{self.hub.repo}/commit/{revision}"


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
    target = _Target(hub, repo_type, (endpoint or hub.endpoint or PUBLIC_ENDPOINT).rstrip("/"))
    secret = token or os.environ.get("HF_TOKEN", "").strip()
    if not secret:
        raise SpecError(
            Reason.HUB_UNAUTHORIZED,
            f"Cannot push to the {target.name}: there is no token. Put one that may write into a Secret and name it in "
            "spec.hub.tokenSecret.",
        )
    with _quiet_client(target.endpoint):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return _push_once(local_folder, target, message, secret)
            except _client_errors() as error:
                problem = _translated(error, target)
                wait = max(FIRST_WAIT_SECONDS * 2 ** (attempt - 1), _asked_wait_seconds(error))
                patient = isinstance(problem, RetryableError) and attempt < ATTEMPTS and wait <= MAX_WAIT_SECONDS
                if problem is None:
                    raise
                if not patient:
                    raise problem from error
                sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _push_once(folder: Path, target: _Target, message: str, token: str) -> HubRevision:
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


def _check_visibility(target: _Target, *, private: bool) -> None:
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


def _client_errors() -> tuple[type[Exception], ...]:
    """What the library raises when the Hub is the reason.

    Its base class comes from httpx or, in newer releases, httpx2; uploads and the check of the card wrap it in errors
    of Python's own.
    """
    from huggingface_hub import errors

    transport: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    return (transport, ConnectionError, TimeoutError, RuntimeError, ValueError)


def _cause(error: BaseException) -> BaseException | None:
    """The error of the chain that talks about the Hub: one with an answer, else one of the connection."""
    chain = [error]
    while (below := chain[-1].__cause__) is not None:
        chain.append(below)
    answered = next((link for link in chain if getattr(link, "response", None) is not None), None)
    lost = next((link for link in chain if not isinstance(link, RuntimeError | ValueError)), None)
    return answered or lost


def _asked_wait_seconds(error: BaseException) -> float:
    response = getattr(_cause(error), "response", None)
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    return float(asked) if asked.isdigit() else 0.0


def _translated(error: Exception, target: _Target) -> JobError | None:
    """Our error for one of the client's; none when the Hub has no part in it, which makes it a bug of ours."""
    from huggingface_hub.errors import HFValidationError

    if isinstance(error, HFValidationError):
        return SpecError(Reason.INVALID_SPEC, f"spec.hub.repo is not a name the Hub accepts: {error}")
    if (cause := _cause(error)) is None:
        return None
    response = getattr(cause, "response", None)
    if response is None:
        return RetryableError(
            Reason.HUB_UNAVAILABLE,
            f"Cannot reach the {target.name}: {str(cause) or type(cause).__name__}. It is tried again; if it stays so, "
            "check spec.hub.endpoint and the namespace's NetworkPolicy.",
        )
    said = response.headers.get("X-Error-Message") or str(error).strip().splitlines()[-1]
    status = response.status_code
    if isinstance(error, RuntimeError) and status == HTTPStatus.FORBIDDEN:
        # The Hub took the token and gave out a link; it is the storage behind the link that calls it expired.
        status = HTTPStatus.SERVICE_UNAVAILABLE
    return _answer_problem(status, target, f"The Hub answers {response.status_code}: {said}")


def _answer_problem(status: int, target: _Target, said: str) -> JobError:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        status = HTTPStatus.SERVICE_UNAVAILABLE
    policy, reason, fault, remedy = _ANSWERS.get(status, _REFUSED)
    return policy(reason, f"{fault} the {target.name}. {said.rstrip('.')}. {remedy}")
