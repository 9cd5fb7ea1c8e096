"""Fetches a checkpoint from the Hub, pushed by another run or by this one from another volume."""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import HubRevisionSource
from hatchery_jobs.hub import find_snapshot, hub_errors, hub_token
from hatchery_jobs.pretrain.checkpoint.publish import state_branch, state_tag, tag_of
from hatchery_jobs.pretrain.checkpoint.store import (
    CHECKPOINT_MANIFEST,
    FILES,
    OPTIMIZER,
    WEIGHTS,
    CheckpointManifest,
    Checkpoints,
    read_checkpoint_manifest,
)
from hatchery_jobs.runtime import DataError, SpecError, log, sha256_file, storage_errors

if TYPE_CHECKING:
    from huggingface_hub import GitRefs

FIELD: Final = "spec.checkpoint.resumeFrom"
"""Field of the spec that names the source."""

FETCHED: Final = ".fetched"
"""Folder beside the checkpoints in which the download is assembled."""

DOWNLOADS: Final = 2
"""Downloads of a checkpoint whose files do not match its manifest: the first may have been corrupted in transit."""

_SHORTEST_COMMIT: Final = 7
"""Digits of an abbreviated commit."""


def fetch_checkpoint(source: HubRevisionSource, checkpoints: Checkpoints, endpoint: str) -> Path | None:
    """Installs a pushed checkpoint in a run that has none.

    A run that has a complete checkpoint already descends from the source and resumes without asking the Hub, which may
    be unavailable. Only one process calls this, before the workers look for checkpoints.

    Args:
        source: `spec.checkpoint.resumeFrom`. A branch selects its newest checkpoint, a tag or commit exactly one.
        checkpoints: The run's own.
        endpoint: URL of the Hub, unless the source names one.

    Returns:
        The folder of the checkpoint; None if the run has its own.

    Raises:
        SpecError: the revision does not exist, has no state to resume from, or the token may not read it.
        DataError: its files differ from those that were pushed.
        RetryableError: the Hub is unavailable, or the volume is full.
    """
    if checkpoints.newest() is not None:
        return None
    endpoint = source.endpoint or endpoint
    tag = _find(source, endpoint)
    folder = checkpoints.folder / FETCHED
    with storage_errors(str(folder)):
        try:
            manifest = _download(source, tag, endpoint, folder)
            # the loss curve up to here stayed on the other volume
            state = manifest.state.model_copy(update={"curve_bytes": 0})
            installed = checkpoints.install(state, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    log("checkpoint-fetched", repo=source.repo, tag=tag, step=state.step)
    return installed


def _find(source: HubRevisionSource, endpoint: str) -> str:
    """Resolves a branch, tag or commit to the tag of a checkpoint's weights."""
    from huggingface_hub import HfApi

    where = f"{FIELD}: {source.repo} at {source.revision} on {endpoint}"
    with hub_errors(where):
        refs = HfApi(endpoint=endpoint, token=hub_token()).list_repo_refs(source.repo)
    commits = {ref.name: ref.target_commit for ref in refs.tags}
    complete = {name: commit for name, commit in commits.items() if state_tag(name) in commits}
    if source.revision in complete:
        return source.revision
    if any(ref.name == source.revision for ref in refs.branches):
        found = _newest_of_branch(source.revision, complete, commits, refs)
    elif source.revision in commits:
        found = None
    else:
        long_enough = len(source.revision) >= _SHORTEST_COMMIT
        found = next((n for n, commit in complete.items() if long_enough and commit.startswith(source.revision)), None)
        if found is None:
            raise SpecError(
                Reason.HUB_NOT_FOUND,
                f"{where}: no branch, tag or checkpoint's commit has this name; the repository has the checkpoints "
                f"{', '.join(sorted(complete)[-5:]) or 'none'}",
            )
    if found is None:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"{where}: the revision has weights but no optimizer state to resume from (tag {source.revision}-state or "
            f"branch {state_branch(source.revision)}), which only runs with spec.checkpoint.pushEvery push; name a "
            "revision that has one, or start a new run from the weights with spec.model.from.hub",
        )
    return found


def _newest_of_branch(branch: str, complete: dict[str, str], commits: dict[str, str], refs: "GitRefs") -> str | None:
    """The checkpoint at the head of the state's branch; after an interrupted push, the one of the highest step."""
    pattern = re.compile(re.escape(tag_of(branch, 0)).removesuffix("0") + r"(\d+)")
    steps = {int(match[1]): name for name in complete if (match := pattern.fullmatch(name))}
    head = next((ref.target_commit for ref in refs.branches if ref.name == state_branch(branch)), None)
    at_head = [step for step, name in steps.items() if commits[state_tag(name)] == head]
    return steps[max(at_head or steps)] if steps else None


def _download(source: HubRevisionSource, tag: str, endpoint: str, folder: Path) -> CheckpointManifest:
    """Downloads the files into a folder, verifies them and returns the manifest."""
    state = find_snapshot(source.repo, state_tag(tag), endpoint, FIELD)
    weights = find_snapshot(source.repo, tag, endpoint, FIELD)
    problem = ""
    for _ in range(DOWNLOADS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        state.download(folder, CHECKPOINT_MANIFEST, OPTIMIZER)
        weights.download(folder, WEIGHTS)
        try:
            manifest = read_checkpoint_manifest(folder)
            changed = [name for name in FILES if sha256_file(folder / name) != manifest.files.get(name)]
        except (FileNotFoundError, ValueError) as error:
            problem = str(error)
            continue
        if not changed:
            return manifest
        problem = f"{changed[0]} is not the file that was pushed"
    raise DataError(
        Reason.ARTIFACT_CORRUPT,
        f"{FIELD}: {source.repo} at {tag} with {state_tag(tag)} on {endpoint} is not a complete checkpoint: "
        f"{problem}; name another revision, for example an earlier step-N",
    )
