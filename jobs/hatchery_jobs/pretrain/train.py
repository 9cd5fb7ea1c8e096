"""Stage `train`: runs the preflight checks, then the workers, and completes the model's folder."""

import json
import os
from pathlib import Path
from typing import Final

from hatchery_api.conditions import Reason
from hatchery_api.contract import METRICS_PORT
from hatchery_api.resources.pretrain import HubRevisionSource, PretrainResult, PretrainRunSpec
from hatchery_jobs.pretrain.data import TokenIndex, TokenStore, copy_tokenizer, load_vocabulary
from hatchery_jobs.pretrain.launcher import CHECKPOINTS, Gang, WorkerSpec, remove_transient_files, run_workers
from hatchery_jobs.pretrain.model import find_weights
from hatchery_jobs.pretrain.objectives import row_tokens
from hatchery_jobs.pretrain.preflight import check, check_hub
from hatchery_jobs.runtime import (
    Context,
    Draft,
    Interrupted,
    Outcome,
    RetryableError,
    log,
    storage_errors,
    write_atomically,
)

CODE_VERSION: Final = "3"
"""Incremented whenever equal inputs would give a different model."""

RESULT: Final = "result.json"
"""File with the result, written last before the manifest: the model's folder is complete."""

EXPORTED_FILES: Final = ("config.json", "model.safetensors")
"""Files that the lead writes at the end of training."""

TIMED: Final = frozenset({"tokensPerSecond", "lastCheckpoint", "resumedFrom", "mfu", "goodput", "microBatch"})
"""Wire names of results that differ between equal runs, and therefore stay out of the artifact."""

FIRST_NODE_SECONDS: Final = 600.0
"""Longest wait of the other pods for the first one to complete the artifact."""


def run(context: Context[PretrainRunSpec]) -> Outcome:
    """Trains the model, from the newest checkpoint of an earlier attempt if there is one.

    Raises:
        SpecError: the spec can never work, or the loss became NaN or infinite.
        DataError: there are too few tokens, or they are of another tokenizer.
        RetryableError: workers or other pods were lost.
        Interrupted: the pod received SIGTERM; a checkpoint is saved.
    """
    spec = context.job.spec
    found_weights = find_weights(context)
    draft = context.draft(CODE_VERSION, found_weights.sources if found_weights else None)
    gang = Gang.from_environment(spec.parallelism, os.environ)
    if (found := draft.existing()) is not None:
        return Outcome(*found, _stored_result(found[1]), cached=True)
    tokens, tokenizer = context.input("tokens"), context.input("tokenizer")
    weights = found_weights.folder(context) if found_weights else None
    store = TokenStore(tokens, row_tokens(spec))
    needs = check(spec, store, load_vocabulary(tokenizer), weights, workers=gang.workers, folder=draft.folder)
    log("preflight", workers=gang.workers, rows=store.sequences("train"), plan=needs.facts())
    if (draft.folder / RESULT).exists():  # an earlier pod finished training but not the artifact
        return _commit(draft, _stored_result(draft.folder))
    worker = WorkerSpec(
        job=context.job,
        tokens=tokens,
        tokenizer=tokenizer,
        weights=weights,
        folder=draft.folder,
        local_folder=context.scratch / "workers",
        first_node=gang.index == 0,
        metrics_port=int(os.environ.get("HATCHERY_METRICS_PORT", METRICS_PORT)),
    )
    if worker.first_node:
        check_hub(context)
    if worker.first_node and spec.checkpoint.resume_from:
        _fetch_checkpoint(context, spec.checkpoint.resume_from, draft.folder)
    result = run_workers(worker, gang, context.stop).result
    if not worker.first_node:
        return _wait_for_first_node(context, draft, result)
    _finish(context, draft.folder, tokenizer, store.index, result)
    return _commit(draft, result)


def _fetch_checkpoint(context: Context[PretrainRunSpec], source: HubRevisionSource, folder: Path) -> None:
    """Fetches the checkpoint to start from, unless the run has its own."""
    from hatchery_jobs.pretrain.checkpoint import Checkpoints, fetch_checkpoint

    checkpoints = Checkpoints(folder / CHECKPOINTS, context.job.spec.checkpoint.keep_last)
    fetch_checkpoint(source, checkpoints, context.job.hub.endpoint)


def _commit(draft: Draft, result: PretrainResult) -> Outcome:
    remove_transient_files(draft.folder)
    return Outcome(*draft.commit(), result)


def _finish(
    context: Context[PretrainRunSpec], folder: Path, tokenizer: Path, index: TokenIndex, result: PretrainResult
) -> None:
    """Completes the model's folder; the result is written last, as the mark that nothing is missing."""
    from hatchery_jobs.pretrain.report import write_report

    missing = [name for name in EXPORTED_FILES if not (folder / name).is_file()]
    if missing:
        raise RetryableError(Reason.ATTEMPT_FAILED, f"{folder}: training is done but {', '.join(missing)} is missing")
    with storage_errors(str(folder)):
        copy_tokenizer(tokenizer, folder)
        reproducible = PretrainResult.model_validate({k: v for k, v in result.wire().items() if k not in TIMED})
        write_report(folder, context.job, index, reproducible, result)
        write_atomically(folder / RESULT, (json.dumps(reproducible.wire(), indent=1) + "\n").encode())


def _wait_for_first_node(context: Context[PretrainRunSpec], draft: Draft, result: PretrainResult) -> Outcome:
    """The outcome of a pod other than the first one, which completes the artifact."""
    for _ in range(int(FIRST_NODE_SECONDS)):
        if (found := draft.existing()) is not None:
            return Outcome(*found, result, cached=True)
        if context.stop.wait(1.0):
            raise Interrupted("training is done; the first pod completes the artifact")
    raise RetryableError(
        Reason.STORAGE_ERROR,
        f"{draft.uri}: the first pod did not complete the artifact within {FIRST_NODE_SECONDS:.0f} s; see its log",
    )


def _stored_result(folder: Path) -> PretrainResult:
    return PretrainResult.model_validate_json((folder / RESULT).read_bytes())
