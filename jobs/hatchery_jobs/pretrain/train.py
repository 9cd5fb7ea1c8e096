"""Stage `train`: checks, runs the workers, and makes the model's folder of what they leave."""

import json
import os
import shutil
from pathlib import Path
from typing import Final

from hatchery_api.conditions import Reason
from hatchery_api.contract import METRICS_PORT
from hatchery_api.resources.pretrain import HubRevisionSource, PretrainResult, PretrainRunSpec
from hatchery_jobs.pretrain.data.row_lengths import row_tokens
from hatchery_jobs.pretrain.data.token_store import TokenIndex, TokenStore
from hatchery_jobs.pretrain.data.vocabulary import copy_tokenizer, load_vocabulary
from hatchery_jobs.pretrain.launcher.launcher import Gang, run_workers
from hatchery_jobs.pretrain.launcher.protocol import CHECKPOINTS, MICRO_BATCH, OUTBOX, STREAMS, WorkerSpec
from hatchery_jobs.pretrain.model.weights import find_weights
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
"""Raised whenever equal inputs would give another model."""

RESULT: Final = "result.json"
"""The result, written when the model is complete but for the manifest."""

MODEL_FILES: Final = ("config.json", "model.safetensors")
"""What the lead worker writes when training is done."""

PASSING: Final = (CHECKPOINTS, MICRO_BATCH, OUTBOX, STREAMS)
"""What is in the work folder only while the run is on."""

TIMED: Final = frozenset({"tokensPerSecond", "lastCheckpoint", "resumedFrom", "mfu", "goodput", "microBatch"})
"""Wire names of results that differ between equal runs, and so are no part of the artifact."""

FIRST_NODE_SECONDS: Final = 600.0
"""Longest wait of another pod for the first one to complete the artifact."""


def run(context: Context[PretrainRunSpec]) -> Outcome:
    """Trains the model, going on from the newest checkpoint of an earlier attempt.

    Raises:
        SpecError: the spec can never work, or the loss became no number.
        DataError: the tokens are too few or of another tokenizer.
        RetryableError: workers or other pods were lost.
        Interrupted: the pod was asked to end; a checkpoint is saved.
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
    plan = check(spec, store, load_vocabulary(tokenizer), weights, workers=gang.workers, folder=draft.folder)
    log("preflight", workers=gang.workers, rows=store.sequences("train"), plan=plan.facts())
    if (draft.folder / RESULT).exists():  # trained, but the pod ended before the artifact was complete
        return _commit(draft, _stored_result(draft.folder))
    order = WorkerSpec(
        job=context.job,
        tokens=tokens,
        tokenizer=tokenizer,
        weights=weights,
        folder=draft.folder,
        signs=context.scratch / "workers",
        first_node=gang.index == 0,
        metrics_port=int(os.environ.get("HATCHERY_METRICS_PORT", METRICS_PORT)),
    )
    if order.first_node:
        check_hub(context)
    if order.first_node and spec.checkpoint.resume_from:
        _fetch(context, spec.checkpoint.resume_from, draft.folder)
    result = run_workers(order, gang, context.stop).result
    if not order.first_node:
        return _others_outcome(context, draft, result)
    _finish(context, draft.folder, tokenizer, store.index, result)
    return _commit(draft, result)


def _fetch(context: Context[PretrainRunSpec], source: HubRevisionSource, folder: Path) -> None:
    """Starts from a pushed checkpoint where the run has none."""
    from hatchery_jobs.pretrain.checkpoint.resume import fetch_checkpoint
    from hatchery_jobs.pretrain.checkpoint.store import Checkpoints

    checkpoints = Checkpoints(folder / CHECKPOINTS, context.job.spec.checkpoint.keep_last)
    fetch_checkpoint(source, checkpoints, context.job.hub.endpoint)


def _commit(draft: Draft, result: PretrainResult) -> Outcome:
    for name in PASSING:
        path = draft.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
    return Outcome(*draft.commit(), result)


def _finish(
    context: Context[PretrainRunSpec], folder: Path, tokenizer: Path, index: TokenIndex, result: PretrainResult
) -> None:
    """Completes the model's folder; the result comes last, and says that nothing is missing."""
    from hatchery_jobs.pretrain.report.pages import write_pages

    absent = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if absent:
        raise RetryableError(Reason.ATTEMPT_FAILED, f"{folder}: training is done but {', '.join(absent)} is not there")
    with storage_errors(str(folder)):
        copy_tokenizer(tokenizer, folder)
        lasting = PretrainResult.model_validate({k: v for k, v in result.wire().items() if k not in TIMED})
        write_pages(folder, context.job, index, lasting, result)
        write_atomically(folder / RESULT, (json.dumps(lasting.wire(), indent=1) + "\n").encode())


def _others_outcome(context: Context[PretrainRunSpec], draft: Draft, result: PretrainResult) -> Outcome:
    """What a pod other than the first one reports: the artifact the first one completes."""
    for _ in range(int(FIRST_NODE_SECONDS)):
        if (found := draft.existing()) is not None:
            return Outcome(*found, result, cached=True)
        if context.stop.wait(1.0):
            raise Interrupted("training is done; the first pod completes the artifact")
    raise RetryableError(
        Reason.STORAGE_ERROR,
        f"{draft.uri}: the first pod did not complete the artifact within {FIRST_NODE_SECONDS:.0f} s; look at its log",
    )


def _stored_result(folder: Path) -> PretrainResult:
    return PretrainResult.model_validate_json((folder / RESULT).read_bytes())
