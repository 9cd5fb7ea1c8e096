"""Reads repositories of the Hub: which commit a revision is, and the files of one commit."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from http import HTTPStatus
from pathlib import Path

from hatchery_api.conditions import Reason
from hatchery_jobs.runtime import JobError, RetryableError, SpecError


@dataclass(frozen=True)
class HubSnapshot:
    """One commit of a model repository."""

    repo: str
    """Repository."""
    commit: str
    """Full sha of the commit."""
    files: tuple[str, ...]
    """Paths of its files."""
    endpoint: str
    """URL of the Hub."""
    field: str
    """Path of the spec's field that names the repository, for messages."""

    def download(self, folder: Path, *patterns: str) -> Path:
        """Puts the files whose names match one of the patterns into a folder.

        Raises:
            SpecError: the Hub refuses it.
            RetryableError: the Hub cannot be reached.
        """
        from huggingface_hub import hf_hub_download

        for file in self.files:
            if any(fnmatch(file, pattern) for pattern in patterns):
                with hub_errors(f"{self.field}: {file} of {self.repo} at {self.commit[:12]} on {self.endpoint}"):
                    hf_hub_download(
                        self.repo,
                        file,
                        revision=self.commit,
                        endpoint=self.endpoint,
                        token=hub_token(),
                        local_dir=folder,
                    )
        return folder


def hub_token() -> str | bool:
    """The token of the environment; False keeps the client from looking for one on disk."""
    return os.environ.get("HF_TOKEN", "").strip() or False


def find_snapshot(repo: str, revision: str, endpoint: str, field: str) -> HubSnapshot:
    """The commit that a revision of a model repository is now.

    Raises:
        SpecError: there is no such repository or revision, or the token may not read it.
        RetryableError: the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    endpoint = endpoint.rstrip("/")
    with hub_errors(f"{field}: {repo} at {revision} on {endpoint}"):
        info = HfApi(endpoint=endpoint, token=hub_token()).model_info(repo, revision=revision)
    files = tuple(sorted(sibling.rfilename for sibling in info.siblings or ()))
    return HubSnapshot(repo, str(info.sha), files, endpoint, field)


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turns the client's errors into those of the jobs; `what` begins their messages."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    # The base class is of the HTTP library the client was built with, and covers lost connections too.
    transport: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        yield
    except HFValidationError as error:
        raise SpecError(Reason.INVALID_SPEC, f"{what}: {error}") from error
    except (transport, LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise _problem(error, what) from error


def _problem(error: Exception, what: str) -> JobError:
    response = getattr(error, "response", None)
    status = response.status_code if response is not None else None
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return SpecError(
            Reason.HUB_UNAUTHORIZED,
            f"{what}: the Hub answers {status}: it does not exist, or the token may not read it; check the name and "
            "the Secret with the token",
        )
    if status == HTTPStatus.NOT_FOUND:
        return SpecError(Reason.HUB_NOT_FOUND, f"{what}: not found; check the repository's name and the revision")
    said = f"answers {status}" if status else f"cannot be reached ({error.__cause__ or error})"
    return RetryableError(Reason.HUB_UNAVAILABLE, f"{what}: the Hub {said}; it is tried again")
