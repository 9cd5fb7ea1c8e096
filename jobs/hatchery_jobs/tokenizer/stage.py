"""The `vocabulary` stage: sample documents, train, check, measure, write."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from hatchery_api.conditions import Reason
from hatchery_api.resources.tokenizer import TokenizerBlocks, TokenizerBuildSpec, TokenizerResult
from hatchery_jobs.readers import open_split
from hatchery_jobs.runtime import Context, DataError, Interrupted, Outcome, write_atomically
from hatchery_jobs.tokenizer import blocks, retrain
from hatchery_jobs.tokenizer.card import tokenizer_card
from hatchery_jobs.tokenizer.measures import count_ids, measure_tokenizer, missing_keywords
from hatchery_jobs.tokenizer.sample import DocumentSample, SampledDocument, sample_split

CODE_VERSION: Final = "1"
"""Part of the artifact's key; raised when equal input would give other files."""

RESULT: Final = "result.json"
"""File with the TokenizerResult."""


@dataclass(frozen=True)
class _Trained:
    """A tokenizer with what is saved beside it."""

    tokenizer: Tokenizer
    roles: dict[str, str]
    settings: dict[str, Any]


def run(context: Context[TokenizerBuildSpec]) -> Outcome:
    """Trains the tokenizer the spec describes, measures it, and writes it for `AutoTokenizer.from_pretrained`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # safe: this process never forks
    spec = context.job.spec
    base = retrain.resolve_base(spec.from_, context.job.hub.endpoint) if spec.from_ else None
    draft = context.draft(CODE_VERSION, {"base": base.digest} if base else {})
    if existing := draft.existing():
        artifact, folder = existing
        result = TokenizerResult.model_validate_json((folder / RESULT).read_bytes())
        return Outcome(artifact, folder, result, cached=True)
    corpus = context.input("corpus")
    sample = sample_split(
        open_split(corpus, spec.corpus_ref.split),
        spec.sample.documents,
        spec.sample.seed,
        spec.sample.document_chars,
    )
    held_out = sample_split(open_split(corpus, "validation"), spec.evaluate.documents, spec.sample.seed)
    trained = _train(context, base, sample)
    check_trained_size(trained.tokenizer, spec, sample)
    counts = count_ids(trained.tokenizer, _texts(context, sample, "documents counted"))
    result = TokenizerResult(
        vocab_size=trained.tokenizer.get_vocab_size(),
        metrics=measure_tokenizer(trained.tokenizer, _with_progress(context, held_out, "documents measured"), counts),
        missing_keywords=None
        if spec.evaluate.keywords == "none"
        else missing_keywords(trained.tokenizer, spec.evaluate.keywords),
        documents=len(sample),
    )
    save(trained.tokenizer, trained.roles, trained.settings, draft.folder)
    write_atomically(
        draft.folder / "README.md", tokenizer_card(context.job.name, spec, trained.tokenizer, result, counts).encode()
    )
    write_atomically(draft.folder / RESULT, (json.dumps(result.wire(), indent=1, sort_keys=True) + "\n").encode())
    artifact, folder = draft.commit()
    return Outcome(artifact, folder, result)


def _train(context: Context[TokenizerBuildSpec], base: retrain.BaseSource | None, sample: DocumentSample) -> _Trained:
    spec = context.job.spec
    if base is not None:
        old = retrain.load_base(base.folder(context.scratch))
        texts = _texts(context, sample, "documents read")
        return _Trained(retrain.retrained(old, spec, texts), retrain.base_roles(old), retrain.settings(old))
    blocks.check_vocab_size(spec)
    design = blocks.untrained(spec.build or TokenizerBlocks(), spec.special_tokens.unk)
    texts = _texts(context, sample, "documents read")
    extra = blocks.extra_tokens(spec.special_tokens)
    settings = {"extra_special_tokens": extra} if extra else {}
    return _Trained(blocks.trained(design, spec, texts), blocks.special_roles(spec.special_tokens), settings)


def check_trained_size(tokenizer: Tokenizer, spec: TokenizerBuildSpec, sample: DocumentSample) -> None:
    """Checks that the vocabulary has exactly `spec.vocabSize` tokens.

    Raises:
        DataError: it does not.
    """
    reached = tokenizer.get_vocab_size()
    if reached < spec.vocab_size:
        raise DataError(
            Reason.VOCABULARY_TOO_LARGE,
            f"spec.vocabSize: {spec.vocab_size} tokens wanted, but training reached {reached} with {len(sample)} "
            f"documents and minFrequency {spec.min_frequency}; lower spec.vocabSize to {reached} or less, raise "
            "spec.sample.documents, or add text to the corpus",
        )
    if reached > spec.vocab_size:
        raise DataError(
            Reason.VOCABULARY_TOO_LARGE,
            f"spec.vocabSize: {spec.vocab_size} tokens wanted, but the base's alphabet and special tokens alone "
            f"need {reached}; raise spec.vocabSize to {reached} or more",
        )


def save(tokenizer: Tokenizer, roles: dict[str, str], settings: dict[str, Any], folder: Path) -> None:
    """Writes the files `AutoTokenizer.from_pretrained` loads; equal tokenizers give equal bytes."""
    from transformers import PreTrainedTokenizerFast

    # clean-up would change decoded text, which a language model must reproduce exactly
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **roles, **settings)
    fast.save_pretrained(folder)


def _with_progress(
    context: Context[TokenizerBuildSpec], sample: DocumentSample, unit: str
) -> Iterator[list[SampledDocument]]:
    done = 0
    for batch in sample.batches():
        if context.stop.is_set():
            raise Interrupted(f"SIGTERM after {done} of {len(sample)} {unit}; the next pod starts over")
        yield batch
        done += len(batch)
        context.progress.update(done, len(sample), unit)


def _texts(context: Context[TokenizerBuildSpec], sample: DocumentSample, unit: str) -> Iterator[list[str]]:
    return ([document.text for document in batch] for batch in _with_progress(context, sample, unit))
