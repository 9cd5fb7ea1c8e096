"""Translates the Hub client's errors into those of the jobs: retry policy, what happened, and the remedy."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal

from hatchery_api.conditions import Reason
from hatchery_api.placement import Hub
from hatchery_jobs.runtime import JobError, RetryableError, SpecError

RepoType = Literal["model", "dataset"]
"""Type of a repository on the Hub."""

_CONFLICT: Final = (
    RetryableError,
    Reason.HUB_UNAVAILABLE,
    "Another commit arrived during the push to",
    "Retrying; give each resource its own spec.hub.repo or spec.hub.revision.",
)
_OUTAGE: Final = (RetryableError, Reason.HUB_UNAVAILABLE, "Cannot push to", "Retrying.")
_REJECTED: Final = (
    SpecError,
    Reason.INVALID_SPEC,
    "The Hub rejects the push to",
    "Correct spec.hub, or the card's fields if the message is about metadata.",
)
_PUSH_POLICIES: Final[Mapping[int, tuple[type[JobError], Reason, str, str]]] = {
    HTTPStatus.UNAUTHORIZED: (
        SpecError,
        Reason.HUB_UNAUTHORIZED,
        "Cannot push to",
        "The token is invalid or expired: put a valid one into the Secret named in spec.hub.tokenSecret.",
    ),
    HTTPStatus.FORBIDDEN: (
        SpecError,
        Reason.HUB_UNAUTHORIZED,
        "Cannot push to",
        "The token in spec.hub.tokenSecret lacks write permission: grant it, or name another spec.hub.repo.",
    ),
    HTTPStatus.NOT_FOUND: (
        SpecError,
        Reason.HUB_NOT_FOUND,
        "Cannot find",
        "Check spec.hub.repo and spec.hub.revision, and that the token may read them.",
    ),
    HTTPStatus.TOO_MANY_REQUESTS: (
        RetryableError,
        Reason.HUB_UNAVAILABLE,
        "Rate limited while pushing to",
        "Retrying; push less often or raise the account's rate limit.",
    ),
    HTTPStatus.CONFLICT: _CONFLICT,
    HTTPStatus.PRECONDITION_FAILED: _CONFLICT,
    HTTPStatus.REQUEST_TIMEOUT: _OUTAGE,
    HTTPStatus.SERVICE_UNAVAILABLE: _OUTAGE,
}
"""HTTP status → error class, reason, what happened, remedy. Every 5xx counts as 503, other codes as rejections."""


@dataclass(frozen=True)
class PushTarget:
    """Where a push goes."""

    hub: Hub
    """`spec.hub`."""
    repo_type: RepoType
    """Type of the repository."""
    endpoint: str
    """URL of the Hub."""

    @property
    def repo(self) -> dict[str, Any]:
        """Keyword arguments that name the repository in calls of the client."""
        return {"repo_id": self.hub.repo, "repo_type": self.repo_type}

    @property
    def name(self) -> str:
        """Repository, branch and server, for messages."""
        return f"{self.repo_type} repository {self.hub.repo} ({self.hub.revision}) on {self.endpoint}"

    def commit_url(self, revision: str) -> str:
        """The page of a commit."""
        prefix = "datasets/" if self.repo_type == "dataset" else ""
        return f"{self.endpoint}/{prefix}{self.hub.repo}/commit/{revision}"


@contextmanager
def push_errors(target: PushTarget) -> Iterator[None]:
    """Translates the client's errors during a push; errors that the Hub did not cause pass unchanged.

    Uploads and the check of the card wrap the transport's errors in RuntimeError and ValueError.
    """
    try:
        yield
    except (_transport_error(), ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        if (translated := _push_error(error, target)) is None:
            raise
        if isinstance(translated, RetryableError):
            translated.wait_seconds = _retry_after_seconds(error)
        raise translated from error


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Translates the client's errors during a read; `what` begins the messages."""
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        yield
    except HFValidationError as error:
        raise SpecError(Reason.INVALID_SPEC, f"{what}: {error}") from error
    except (_transport_error(), LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise _read_error(error, what) from error


def _transport_error() -> type[Exception]:
    """Base class of the HTTP library the client was built with, httpx or httpx2; covers lost connections too."""
    from huggingface_hub.errors import HfHubHTTPError

    transport: type[Exception] = HfHubHTTPError.__bases__[0]
    return transport


def _read_error(error: Exception, what: str) -> JobError:
    response = getattr(error, "response", None)
    status = response.status_code if response is not None else None
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return SpecError(
            Reason.HUB_UNAUTHORIZED,
            f"{what}: the Hub answers {status}: the repository does not exist, or the token may not read it; check the "
            "name and the Secret with the token",
        )
    if status == HTTPStatus.NOT_FOUND:
        return SpecError(Reason.HUB_NOT_FOUND, f"{what}: not found; check the repository's name and the revision")
    problem = f"answers {status}" if status else f"cannot be reached ({error.__cause__ or error})"
    return RetryableError(Reason.HUB_UNAVAILABLE, f"{what}: the Hub {problem}; retrying")


def _push_error(error: Exception, target: PushTarget) -> JobError | None:
    """The error of the jobs for one of the client's; None when the Hub did not cause it, which makes it a bug."""
    from huggingface_hub.errors import HFValidationError

    if isinstance(error, HFValidationError):
        return SpecError(Reason.INVALID_SPEC, f"spec.hub.repo is not a valid repository name: {error}")
    if (cause := _hub_cause(error)) is None:
        return None
    response = getattr(cause, "response", None)
    if response is None:
        return RetryableError(
            Reason.HUB_UNAVAILABLE,
            f"Cannot reach the {target.name}: {str(cause) or type(cause).__name__}. Retrying; if it persists, check "
            "spec.hub.endpoint and the namespace's NetworkPolicy.",
        )
    answer = response.headers.get("X-Error-Message") or str(error).strip().splitlines()[-1]
    status = response.status_code
    if isinstance(error, RuntimeError) and status == HTTPStatus.FORBIDDEN:
        # the Hub accepted the token and issued an upload link; the storage behind the link rejects it as expired
        status = HTTPStatus.SERVICE_UNAVAILABLE
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        status = HTTPStatus.SERVICE_UNAVAILABLE
    policy, reason, problem, remedy = _PUSH_POLICIES.get(status, _REJECTED)
    answered = f"The Hub answers {response.status_code}: {answer.rstrip('.')}."
    return policy(reason, f"{problem} the {target.name}. {answered} {remedy}")


def _hub_cause(error: BaseException) -> BaseException | None:
    """The error in the chain that comes from the Hub: one with a response, else one of the connection."""
    chain = [error]
    while (below := chain[-1].__cause__) is not None:
        chain.append(below)
    answered = next((link for link in chain if getattr(link, "response", None) is not None), None)
    lost = next((link for link in chain if not isinstance(link, RuntimeError | ValueError)), None)
    return answered or lost


def _retry_after_seconds(error: BaseException) -> float:
    response = getattr(_hub_cause(error), "response", None)
    seconds = response.headers.get("Retry-After", "") if response is not None else ""
    return float(seconds) if seconds.isdigit() else 0.0
