"""What the answers of a Hub mean for a push: the policy, what happened, and what to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal

from hatchery_api.conditions import Reason
from hatchery_api.placement import Hub
from hatchery_jobs.runtime import JobError, RetryableError, SpecError

RepoType = Literal["model", "dataset"]
"""What the Hub shows a repository as."""

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
class Target:
    """Where a push goes, as messages name it."""

    hub: Hub
    """`spec.hub`."""
    repo_type: RepoType
    """What the Hub shows it as."""
    endpoint: str
    """URL of the Hub."""

    @property
    def name(self) -> str:
        """The repository, its branch and its server."""
        return f"{self.repo_type} repository {self.hub.repo} ({self.hub.revision}) on {self.endpoint}"

    def commit_url(self, revision: str) -> str:
        """The page of a commit."""
        prefix = "datasets/" if self.repo_type == "dataset" else ""
        return f"{self.endpoint}/{prefix}{self.hub.repo}/commit/{revision}"


def client_errors() -> tuple[type[Exception], ...]:
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


def translated(error: Exception, target: Target) -> JobError | None:
    """Our error for one of the client's; none when the Hub has no part in it, which makes it a bug of ours."""
    problem = _problem(error, target)
    if isinstance(problem, RetryableError):
        problem.wait_seconds = _asked_wait_seconds(error)
    return problem


def _problem(error: Exception, target: Target) -> JobError | None:
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


def _answer_problem(status: int, target: Target, said: str) -> JobError:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        status = HTTPStatus.SERVICE_UNAVAILABLE
    policy, reason, fault, remedy = _ANSWERS.get(status, _REFUSED)
    return policy(reason, f"{fault} the {target.name}. {said.rstrip('.')}. {remedy}")
