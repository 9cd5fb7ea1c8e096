"""Stage `encode`: corpora and a tokenizer become memory-mappable tokens and an index.

Every part of a corpus is encoded into a piece of its own. Several pods share the parts: each takes every n-th, then
helps with those that are missing. Any of them completes the artifact; since its bytes depend on the inputs only, it
does not matter which.
"""

import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import PretrainResult, PretrainRunSpec
from hatchery_jobs.pretrain.data.corpora import corpora, corpus_role, open_sources
from hatchery_jobs.pretrain.data.encode_worker import CODE_VERSION, Work, make_plan
from hatchery_jobs.pretrain.data.row_lengths import row_tokens
from hatchery_jobs.pretrain.data.shard_cache import Pieces
from hatchery_jobs.pretrain.data.token_store import INDEX, SplitIndex, TokenIndex, TokenStore
from hatchery_jobs.pretrain.data.vocabulary import Vocabulary
from hatchery_jobs.pretrain.model.config import resolve_shape
from hatchery_jobs.pretrain.preflight import check, check_hub
from hatchery_jobs.runtime import Context, DataError, Outcome, local_path, storage_errors, write_atomically

PIECES: Final = "_pieces"
"""Folder of encoded parts beside the runs' folders; no run can have this name."""


def run(context: Context[PretrainRunSpec]) -> Outcome:
    """Encodes all corpora in the order of the spec, each document followed by the end-of-text token.

    Raises:
        DataError: a split is shorter than one sequence, or a file cannot be read.
        SpecError: the model of the spec cannot be built, or the Hub refuses it; better said now than after hours.
        Interrupted: the pod was asked to end.
    """
    spec = context.job.spec
    plan, sources = make_plan(context), open_sources(context.job)
    draft = context.draft(CODE_VERSION, {corpus_role(n): c.digest for n, c in sources.items()}, plan.facts)
    if not spec.model.from_:
        resolve_shape(spec, plan.vocabulary)
    if _pod() == 0 and spec.hub and spec.encode_token == spec.hub.token_secret:
        check_hub(context)
    if (found := draft.existing()) is not None:
        return Outcome(*found, planned(context, plan.vocabulary, found[1]), cached=True)
    parent = context.job.output.root.rstrip("/").rpartition("/")[0]
    owner = f"{context.job.uid}-{_pod()}"
    pieces = Pieces(f"{parent}/{PIECES}", context.scratch, owner)
    work = Work(context, plan, corpora(context, sources), pieces)
    work.encode(*_share())
    own = replace(draft, folder=draft.folder / str(_pod()))
    with storage_errors(str(own.folder)):
        shutil.rmtree(own.folder, ignore_errors=True)
        own.folder.mkdir(parents=True)
        index = work.assemble(own.folder)
        write_atomically(own.folder / INDEX, (index.model_dump_json(by_alias=True, indent=1) + "\n").encode())
    result = planned(context, plan.vocabulary, own.folder)
    artifact, folder = own.commit()
    with suppress(OSError):  # other pods are still at it
        draft.folder.rmdir()
    return Outcome(artifact, folder, result)


def planned(context: Context[PretrainRunSpec], vocabulary: Vocabulary, tokens: Path) -> PretrainResult:
    """What training will take, while no device is held yet.

    Raises:
        JobError: it cannot work.
    """
    spec = context.job.spec
    store = TokenStore(tokens, row_tokens(spec))
    check_length(store, row_tokens(spec))
    facts = {"tokens_per_step": spec.batch.sequences * spec.data.sequence_length, "steps": spec.schedule.steps}
    if spec.model.from_:  # weights are an input of training alone, and decide the sizes
        return PretrainResult(**facts)
    processes = spec.parallelism.processes_per_node
    workers = spec.parallelism.nodes * (1 if processes == "auto" else processes)
    root = local_path(context.job.output.root)
    plan = check(spec, store, vocabulary, None, workers=workers, folder=root)
    return PretrainResult(
        **facts,
        parameters=plan.shape.parameters,
        epochs=plan.epochs or None,
        checkpoint_bytes=plan.checkpoint_bytes,
        state_bytes=plan.state_bytes,
    )


def _pod() -> int:
    return int(os.environ.get("HATCHERY_NODE_INDEX") or 0)


def _share() -> tuple[int, int]:
    """This pod's number, and the number of pods."""
    return _pod(), int(os.environ.get("HATCHERY_NODES") or 1)


def check_length(store: TokenStore, sequence_tokens: int) -> None:
    """Sees to it that there is something to learn from each corpus, and to measure.

    Raises:
        DataError: there is not.
    """
    index = store.index
    for corpus, rows in zip(index.corpora, store.counts("train"), strict=True):
        if not rows and not index.streamed:
            raise _too_little(index, f"corpus {corpus.name}: the train", corpus.splits["train"], sequence_tokens)
    if not store.sequences("validation"):
        raise _too_little(index, "the validation", index.splits["validation"], sequence_tokens)


def _too_little(index: TokenIndex, which: str, split: SplitIndex, sequence_tokens: int) -> DataError:
    more = "raise split.validation of the CorpusBuild or spec.data.validationShare"
    remedy = "add text to its sources" if "train" in which else more
    if index.packing == "pairs":
        message = f"{which} split has no pair of a comment and its code: {remedy}"
    else:
        message = (
            f"{which} split has {split.tokens} tokens in {split.documents} documents; one sequence takes "
            f"{sequence_tokens + 1}: {remedy}, or lower spec.data.sequenceLength"
        )
    return DataError(Reason.NOT_ENOUGH_TEXT, message)
