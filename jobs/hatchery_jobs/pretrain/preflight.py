"""Checks before torch is imported and workers are started."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.hub import check_writable
from hatchery_jobs.pretrain.data import TokenStore, Vocabulary
from hatchery_jobs.pretrain.launcher import CHECKPOINTS
from hatchery_jobs.pretrain.model import ModelConfig, model_config
from hatchery_jobs.runtime import Context, DataError, RetryableError, SpecError, log

GB: Final = 1e9
"""Bytes."""

ADAM_BYTES: Final = 16
"""Bytes per parameter during training: weight, gradient and two moments of 32 bits each."""

CHECKPOINT_BYTES: Final = 12
"""Bytes per parameter in a checkpoint: weight and two moments."""

SPARE_CHECKPOINTS: Final = 2
"""Checkpoints on disk beside `keepLast`: one being written, one being pushed."""


@dataclass(frozen=True)
class RunNeeds:
    """What a run needs, known before it starts."""

    config: ModelConfig
    """The model."""
    epochs: float
    """Passes over the rows of the train split."""
    state_bytes: int
    """Weights, gradients and optimizer state, over all workers that share them."""
    checkpoint_bytes: int
    """One checkpoint."""

    def facts(self) -> dict[str, float]:
        """The numbers for the log."""
        return {
            "parameters": self.config.parameters,
            "epochs": round(self.epochs, 3),
            "stateBytes": self.state_bytes,
            "checkpointBytes": self.checkpoint_bytes,
        }


def check(
    spec: PretrainRunSpec,
    store: TokenStore,
    vocabulary: Vocabulary,
    weights: Path | None,
    *,
    workers: int,
    folder: Path | None,
) -> RunNeeds:
    """Checks everything that is cheap to check, and returns what the run needs.

    Args:
        spec: of the run.
        store: the tokens.
        vocabulary: the tokenizer.
        weights: folder of pretrained weights; None: fresh ones.
        workers: processes of the whole run.
        folder: on the checkpoints' volume; existing checkpoints in it count as free space. None: unknown.

    Raises:
        SpecError: the spec can never work.
        DataError: there are too few tokens, or tokens or weights do not match the tokenizer.
        RetryableError: the volume lacks space for the checkpoints.
    """
    config = model_config(spec, vocabulary, weights)
    _check_vocabulary(store, vocabulary)
    if spec.data.loading == "mmap":
        _check_amount(spec, store)
    _check_batch(spec, workers)
    rows = store.sequences("train")
    needs = RunNeeds(
        config=config,
        epochs=spec.schedule.steps * spec.batch.sequences / rows if rows else 0.0,
        state_bytes=ADAM_BYTES * config.parameters,
        checkpoint_bytes=CHECKPOINT_BYTES * config.parameters,
    )
    if folder is not None:
        _check_space(spec, needs, folder)
    return needs


def check_length(store: TokenStore) -> None:
    """Checks that every corpus has a row to train on, and that the validation split has a row.

    Raises:
        DataError: a split is too short.
    """
    index = store.index
    short = [
        (f"corpus {corpus.name}: the train split", corpus.splits["train"], "add text to its sources")
        for corpus, rows in zip(index.corpora, store.counts("train"), strict=True)
        if not rows and not index.streamed
    ]
    if not store.sequences("validation"):
        remedy = "raise split.validation of the CorpusBuild or spec.data.validationShare"
        short.append(("the validation split", index.splits["validation"], remedy))
    if not short:
        return
    subject, split, remedy = short[0]
    if index.packing == "pairs":
        message = f"{subject} has no pair of a comment and its code: {remedy}"
    else:
        message = (
            f"{subject} has {split.tokens} tokens in {split.documents} documents; one sequence takes "
            f"{store.sequence_tokens + 1}: {remedy}, or lower spec.data.sequenceLength"
        )
    raise DataError(Reason.NOT_ENOUGH_TEXT, message)


def check_hub(context: Context[PretrainRunSpec]) -> None:
    """Checks that the run may push to the Hub, before anything is computed. An unreachable Hub is only logged.

    Raises:
        SpecError: there is no token, or it may not write.
    """
    hub = context.job.spec.hub
    if hub is None:
        return
    try:
        check_writable(hub, "model", endpoint=context.job.hub.endpoint)
    except RetryableError as error:
        log("hub-away", message=error.message)


def _check_space(spec: PretrainRunSpec, needs: RunNeeds, folder: Path) -> None:
    existing = sum(path.stat().st_size for path in (folder / CHECKPOINTS).rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free + existing
    checkpoints = spec.checkpoint.keep_last + SPARE_CHECKPOINTS
    needed = checkpoints * needs.checkpoint_bytes
    if needed > free:
        raise RetryableError(
            Reason.STORAGE_ERROR,
            f"{folder}: {checkpoints} checkpoints of {needs.config.parameters:,} parameters take {needed / GB:.1f} GB, "
            f"the volume has {free / GB:.1f} GB left; free some space, use another claim in spec.storage, or lower "
            "spec.checkpoint.keepLast",
        )


def _check_vocabulary(store: TokenStore, vocabulary: Vocabulary) -> None:
    index = store.index
    if (index.vocab_size, index.eos_id) != (vocabulary.size, vocabulary.eos_id):
        raise DataError(
            Reason.VOCABULARY_MISMATCH,
            f"the tokens were encoded with {index.vocab_size} tokens and end-of-text {index.eos_id}, the tokenizer has "
            f"{vocabulary.size} and {vocabulary.eos_id}: these are different tokenizers; run the encode stage again",
        )


def _check_amount(spec: PretrainRunSpec, store: TokenStore) -> None:
    sequences = store.sequences("train")
    if sequences < spec.batch.sequences:
        raise DataError(
            Reason.NOT_ENOUGH_TEXT,
            f"the corpus has {store.index.splits['train'].tokens} tokens, {sequences} sequences of "
            f"{spec.data.sequence_length}; one batch takes {spec.batch.sequences} (spec.batch.sequences): lower it or "
            "add text",
        )


def _check_batch(spec: PretrainRunSpec, workers: int) -> None:
    rows, per_device = spec.batch.sequences, spec.batch.per_device
    if rows % per_device:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.batch.perDevice {per_device} does not divide spec.batch.sequences {rows}; "
            f"the next lower value that does is {next(n for n in range(per_device, 0, -1) if rows % n == 0)}",
        )
    if workers > rows // per_device:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"{workers} workers (spec.parallelism) share {rows // per_device} micro-batches of {per_device} "
            f"sequences; each needs one: use at most {rows // per_device} workers, or raise spec.batch.sequences",
        )
