"""Reads model repositories of the Hub at a commit."""

import os
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from hatchery_jobs.hub.responses import hub_errors


@dataclass(frozen=True)
class HubSnapshot:
    """One commit of a model repository."""

    repo: str
    """Name of the repository."""
    commit: str
    """Full sha of the commit."""
    files: tuple[str, ...]
    """Paths of its files."""
    endpoint: str
    """URL of the Hub."""
    field: str
    """Path of the spec's field that names the repository, for messages."""

    def download(self, folder: Path, *patterns: str) -> Path:
        """Downloads the files whose paths match one of the patterns.

        Raises:
            SpecError: the Hub rejects the request.
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
    """The token in `HF_TOKEN`; False keeps the client from searching the disk for one."""
    return os.environ.get("HF_TOKEN", "").strip() or False


def find_snapshot(repo: str, revision: str, endpoint: str, field: str) -> HubSnapshot:
    """Resolves a revision of a model repository to a commit.

    Raises:
        SpecError: the repository or revision does not exist, or the token may not read it.
        RetryableError: the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    endpoint = endpoint.rstrip("/")
    with hub_errors(f"{field}: {repo} at {revision} on {endpoint}"):
        info = HfApi(endpoint=endpoint, token=hub_token()).model_info(repo, revision=revision)
    files = tuple(sorted(sibling.rfilename for sibling in info.siblings or ()))
    return HubSnapshot(repo, str(info.sha), files, endpoint, field)
