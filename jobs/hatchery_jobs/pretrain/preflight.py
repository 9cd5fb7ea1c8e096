"""What can be known to fail before torch is imported and workers are started."""

from hatchery_api.conditions import Reason
from hatchery_api.pretrain import PretrainRunSpec
from hatchery_jobs.errors import DataError, SpecError
from hatchery_jobs.pretrain.data import TokenStore
from hatchery_jobs.pretrain.shape import Shape, resolve_shape
from hatchery_jobs.pretrain.vocabulary import Vocabulary


def check(spec: PretrainRunSpec, store: TokenStore, vocabulary: Vocabulary, workers: int) -> Shape:
    """The shape of the model, after everything that can be checked cheaply.

    Raises:
        SpecError: the spec can never work.
        DataError: the tokens are too few or of another tokenizer.
    """
    shape = resolve_shape(spec.model, spec.data.sequence_length, vocabulary.size)
    _check_vocabulary(store, vocabulary)
    _check_amount(spec, store)
    _check_batch(spec, workers)
    return shape


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
