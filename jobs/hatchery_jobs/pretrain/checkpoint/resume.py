"""Starts a run from a checkpoint that another one, or this one on another volume, pushed to the Hub."""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import HubRevisionSource
from hatchery_jobs.hub import find_snapshot, hub_errors, hub_token
from hatchery_jobs.pretrain.checkpoint.publish import state_branch, state_tag, tag_of
from hatchery_jobs.pretrain.checkpoint.store import (
    FILES,
    MANIFEST,
    OPTIMIZER,
    WEIGHTS,
    Checkpoints,
    Manifest,
    read_manifest,
)
from hatchery_jobs.runtime import DataError, SpecError, log, sha256_file, storage_errors

if TYPE_CHECKING:
    from huggingface_hub import GitRefs

FIELD: Final = "spec.checkpoint.resumeFrom"
"""Where the source is in the spec."""

FETCHED: Final = ".fetched"
"""Folder beside the checkpoints in which one is put together."""

DOWNLOADS: Final = 2
"""Times a checkpoint is downloaded whose content is not what its manifest says: the first may have been spoilt on its
way."""

_SHORTEST_COMMIT: Final = 7
"""Digits of an abbreviated commit."""


def fetch_checkpoint(source: HubRevisionSource, checkpoints: Checkpoints, endpoint: str) -> Path | None:
    """Makes a pushed checkpoint the newest one of a run that has none.

    A run that has a complete checkpoint descends from the source already: the Hub is not even asked, so that its
    absence does not keep the run from going on. One process calls it, before the workers look for checkpoints.

    Args:
        source: `spec.checkpoint.resumeFrom`. A branch means its newest checkpoint, a tag or commit that one.
        checkpoints: Those of the run.
        endpoint: URL of the Hub where the source names none.

    Returns:
        The folder of the checkpoint; None when the run has one of its own.

    Raises:
        SpecError: there is no such revision, it has no state to go on from, or the token may not read it.
        DataError: its files are not those that were pushed.
        RetryableError: the Hub cannot be reached, or the volume is full.
    """
    if checkpoints.newest() is not None:
        return None
    endpoint = source.endpoint or endpoint
    tag = _find(source, endpoint)
    folder = checkpoints.folder / FETCHED
    with storage_errors(str(folder)):
        try:
            manifest = _download(source, tag, endpoint, folder)
            # the curve of the losses up to here stayed on the other volume
            state = manifest.state.model_copy(update={"curve_bytes": 0})
            installed = checkpoints.install(state, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    log("checkpoint-fetched", repo=source.repo, tag=tag, step=state.step)
    return installed


def _find(source: HubRevisionSource, endpoint: str) -> str:
    """The tag of the weights of the checkpoint that a branch, tag or commit means."""
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
                f"{where}: there is no such branch, no such tag, and no checkpoint at such a commit; it has the "
                f"checkpoints {', '.join(sorted(complete)[-5:]) or 'none'}",
            )
    if found is None:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"{where}: there are weights, but no state of an optimizer to go on from (tag {source.revision}-state or "
            f"branch {state_branch(source.revision)}); only runs with spec.checkpoint.pushEvery push it. Name a "
            "revision that has it, or start anew from the weights with spec.model.from.hub",
        )
    return found


def _newest_of_branch(branch: str, complete: dict[str, str], commits: dict[str, str], refs: "GitRefs") -> str | None:
    """The checkpoint at the head of the state's branch; after a push that broke off, the one of the highest step."""
    pattern = re.compile(re.escape(tag_of(branch, 0)).removesuffix("0") + r"(\d+)")
    steps = {int(match[1]): name for name in complete if (match := pattern.fullmatch(name))}
    head = next((ref.target_commit for ref in refs.branches if ref.name == state_branch(branch)), None)
    at_head = [step for step, name in steps.items() if commits[state_tag(name)] == head]
    return steps[max(at_head or steps)] if steps else None


def _download(source: HubRevisionSource, tag: str, endpoint: str, folder: Path) -> Manifest:
    """The manifest and, in the folder, the files it vouches for."""
    state = find_snapshot(source.repo, state_tag(tag), endpoint, FIELD)
    weights = find_snapshot(source.repo, tag, endpoint, FIELD)
    wrong = ""
    for _ in range(DOWNLOADS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        state.download(folder, MANIFEST, OPTIMIZER)
        weights.download(folder, WEIGHTS)
        try:
            manifest = read_manifest(folder)
            changed = [name for name in FILES if sha256_file(folder / name) != manifest.files.get(name)]
        except (FileNotFoundError, ValueError) as error:
            wrong = str(error)
            continue
        if not changed:
            return manifest
        wrong = f"{changed[0]} is not the file that was pushed"
    raise DataError(
        Reason.ARTIFACT_CORRUPT,
        f"{FIELD}: {source.repo} at {tag} with {state_tag(tag)} on {endpoint} is no complete checkpoint: {wrong}; "
        "name another revision, for example an earlier step-N",
    )
