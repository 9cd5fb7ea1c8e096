"""What can be known to fail before torch is imported and workers are started."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.hub import check_writable
from hatchery_jobs.pretrain.data.token_store import TokenStore
from hatchery_jobs.pretrain.data.vocabulary import Vocabulary
from hatchery_jobs.pretrain.launcher.protocol import CHECKPOINTS
from hatchery_jobs.pretrain.model.config import ModelConfig
from hatchery_jobs.pretrain.model.weights import model_shape
from hatchery_jobs.runtime import Context, DataError, RetryableError, SpecError, log

GB: Final = 1e9
"""Bytes."""


ADAM_BYTES: Final = 16
"""Bytes a parameter takes while training: weight, gradient and two moments of 32 bits each."""

CHECKPOINT_BYTES: Final = 12
"""Bytes of a parameter in a checkpoint: weight and two moments."""

SPARE_CHECKPOINTS: Final = 2
"""Checkpoints on disk beside those that are kept: the one being written and the one being pushed."""


@dataclass(frozen=True)
class Plan:
    """What a run will take, before anything is started."""

    shape: ModelConfig
    """The model."""
    epochs: float
    """How often each row is learnt from."""
    state_bytes: int
    """Weights, gradients and optimizer, over all workers that share them."""
    checkpoint_bytes: int
    """One checkpoint."""

    def facts(self) -> dict[str, float]:
        """The numbers, for the log."""
        return {
            "parameters": self.shape.parameters,
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
) -> Plan:
    """The plan of a run, after everything that can be checked cheaply.

    Args:
        spec: of the run.
        store: the tokens.
        vocabulary: the tokenizer.
        weights: folder of the weights to go on from; None: fresh ones.
        workers: processes of the whole run.
        folder: on the volume of the checkpoints; those that are in it count as room. None: it is not known.

    Raises:
        SpecError: the spec can never work.
        DataError: the tokens are too few or of another tokenizer, or the weights do not fit.
        RetryableError: the volume has no room for the checkpoints.
    """
    shape = model_shape(spec, vocabulary, weights)
    _check_vocabulary(store, vocabulary)
    if spec.data.loading == "mmap":
        _check_amount(spec, store)
    _check_batch(spec, workers)
    rows = store.sequences("train")
    plan = Plan(
        shape=shape,
        epochs=spec.schedule.steps * spec.batch.sequences / rows if rows else 0.0,
        state_bytes=ADAM_BYTES * shape.parameters,
        checkpoint_bytes=CHECKPOINT_BYTES * shape.parameters,
    )
    if folder is not None:
        _check_space(spec, plan, folder)
    return plan


def check_hub(context: Context[PretrainRunSpec]) -> None:
    """Asks before anything is computed whether the run may push; a Hub that is away is caught up with later.

    Raises:
        SpecError: the token may not write, or there is none.
    """
    hub = context.job.spec.hub
    if hub is None:
        return
    try:
        check_writable(hub, "model", endpoint=context.job.hub.endpoint)
    except RetryableError as error:
        log("hub-away", message=error.message)


def _check_space(spec: PretrainRunSpec, plan: Plan, folder: Path) -> None:
    """Refuses a volume that the checkpoints will fill."""
    there = sum(path.stat().st_size for path in (folder / CHECKPOINTS).rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free + there
    wanted = (spec.checkpoint.keep_last + SPARE_CHECKPOINTS) * plan.checkpoint_bytes
    if wanted > free:
        raise RetryableError(
            Reason.STORAGE_ERROR,
            f"{folder}: {spec.checkpoint.keep_last + SPARE_CHECKPOINTS} checkpoints of {plan.shape.parameters:,} "
            f"parameters take {wanted / GB:.1f} GB, the volume has {free / GB:.1f} GB left; make room, take another "
            "claim in spec.storage, or lower spec.checkpoint.keepLast",
        )


def _check_vocabulary(store: TokenStore, vocabulary: Vocabulary) -> None:
    index = store.index
    if (index.vocab_size, index.eos_id) != (vocabulary.size, vocabulary.eos_id):
        raise DataError(
            Reason.VOCABULARY_MISMATCH,
            f"the tokens were encoded with {index.vocab_size} tokens and end-of-text {index.eos_id}, the tokenizer has "
            f"{vocabulary.size} and {vocabulary.eos_id}; they are of different tokenizers: run the encode stage again",
        )


def _check_amount(spec: PretrainRunSpec, store: TokenStore) -> None:
    sequences = store.sequences("train")
    if sequences < spec.batch.sequences:
        raise DataError(
            Reason.NOT_ENOUGH_TEXT,
            f"the corpus has {store.index.splits['train'].tokens} tokens, {sequences} sequences of "
            f"{spec.data.sequence_length}; one batch takes {spec.batch.sequences} (spec.batch.sequences): lower it or "
            "take more text",
        )


def _check_batch(spec: PretrainRunSpec, workers: int) -> None:
    rows, in_one_pass = spec.batch.sequences, spec.batch.per_device
    if rows % in_one_pass:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.batch.perDevice {in_one_pass} does not divide spec.batch.sequences {rows}; "
            f"the next lower value that does is {next(n for n in range(in_one_pass, 0, -1) if rows % n == 0)}",
        )
    if workers > rows // in_one_pass:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"{workers} workers (spec.parallelism) share {rows // in_one_pass} micro-batches of {in_one_pass} "
            f"sequences; each needs one: at most {rows // in_one_pass} workers, or raise spec.batch.sequences",
        )
