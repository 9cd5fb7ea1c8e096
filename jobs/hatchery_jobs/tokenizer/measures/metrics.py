"""Measures a tokenizer on held-out text, and proves that decoding gives every text back."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from hatchery_api.conditions import Reason
from hatchery_api.resources.tokenizer import TokenizerMetrics
from hatchery_jobs.runtime import DataError
from hatchery_jobs.tokenizer.blocks import is_byte_level, normalized
from hatchery_jobs.tokenizer.probes import PROBES, WORD_LISTS
from hatchery_jobs.tokenizer.sample import SampledDocument

RARE_OCCURRENCES: Final = 10
"""A token seen less often than this in training is rare."""

Counts = npt.NDArray[np.int64]

_WORD: Final = re.compile(r"\S+")


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoding]:
    """Texts as tokens, without the special tokens a post-processor would add."""
    return tokenizer.encode_batch(list(texts), add_special_tokens=False)


def count_ids(tokenizer: Tokenizer, batches: Iterable[Sequence[str]]) -> Counts:
    """How often each id occurs in texts."""
    size = tokenizer.get_vocab_size()
    counts = np.zeros(size, np.int64)
    for texts in batches:
        ids = np.concatenate([np.array(encoding.ids, np.int64) for encoding in encode(tokenizer, texts)])
        counts += np.bincount(ids, minlength=size)
    return counts


def tokens_per_word(text: str, offsets: Sequence[tuple[int, int]]) -> Counts:
    """For each run of non-whitespace, how many tokens overlap it.

    Offsets of tokens grow, so the tokens that start before a word's end, less those that end before its start, are
    the ones that overlap it: two binary searches a word.
    """
    words = np.array([match.span() for match in _WORD.finditer(text)], np.int64).reshape(-1, 2)
    tokens = np.array(offsets, np.int64).reshape(-1, 2)
    begun = np.searchsorted(tokens[:, 0], words[:, 1], side="left")
    ended = np.searchsorted(tokens[:, 1], words[:, 0], side="right")
    return begun - ended


@dataclass
class _Tally:
    """Sums over documents."""

    ids: Counts
    documents: int = 0
    unchanged: int = 0
    chars: int = 0
    text_bytes: int = 0
    words: int = 0
    continued: int = 0


def measure(tokenizer: Tokenizer, batches: Iterable[list[SampledDocument]], trained: Counts) -> TokenizerMetrics:
    """The measures over held-out documents.

    Args:
        tokenizer: what is measured.
        batches: the documents.
        trained: how often each id occurs in the text the tokenizer was trained on.

    Raises:
        DataError: a byte-level tokenizer does not give a text back.
    """
    for probe in PROBES:
        _check_back(tokenizer, SampledDocument("a probe", probe), encode(tokenizer, [probe])[0])
    tally = _Tally(ids=np.zeros(len(trained), np.int64))
    for batch in batches:
        for document, encoding in zip(batch, encode(tokenizer, [d.text for d in batch]), strict=True):
            _add(tally, tokenizer, document, encoding)
    return _metrics(tally, tokenizer, trained)


def _add(tally: _Tally, tokenizer: Tokenizer, document: SampledDocument, encoding: Encoding) -> None:
    text = document.text
    parts = tokens_per_word(text, encoding.offsets)
    tally.ids += np.bincount(encoding.ids, minlength=len(tally.ids))
    tally.documents += 1
    tally.unchanged += _check_back(tokenizer, document, encoding)
    tally.chars += len(text)
    tally.text_bytes += len(text.encode())
    tally.words += len(parts)
    tally.continued += int((parts > 1).sum())


def _check_back(tokenizer: Tokenizer, document: SampledDocument, encoding: Encoding) -> bool:
    back = tokenizer.decode(encoding.ids, skip_special_tokens=False)
    if is_byte_level(tokenizer) and back != (text := normalized(tokenizer, document.text)):
        place = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back)))
        raise DataError(
            Reason.UNREADABLE_INPUT,
            f"{document.where}: decoding does not give the text back from character {place} on: "
            f"{text[place : place + 20]!r} becomes {back[place : place + 20]!r}; a special token that takes "
            "neighbouring spaces does this: name other special tokens, or another base",
        )
    return back == document.text


def _metrics(tally: _Tally, tokenizer: Tokenizer, trained: Counts) -> TokenizerMetrics:
    tokens = max(1, int(tally.ids.sum()))
    words = max(1, tally.words)
    unknown_id = _unknown_id(tokenizer)
    return TokenizerMetrics(
        fertility=tokens / words,
        continued_words=tally.continued / words,
        unknown=0.0 if unknown_id is None else int(tally.ids[unknown_id]) / tokens,
        rare=int(tally.ids[trained < RARE_OCCURRENCES].sum()) / tokens,
        unused_vocabulary=int((tally.ids == 0).sum()) / len(tally.ids),
        chars_per_token=tally.chars / tokens,
        bytes_per_token=tally.text_bytes / tokens,
        round_trip=tally.unchanged / max(1, tally.documents),
    )


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    token = getattr(tokenizer.model, "unk_token", None)
    return None if token is None else tokenizer.token_to_id(token)


def missing_words(tokenizer: Tokenizer, words: str) -> list[str]:
    """The words of a list that are no single token, neither alone nor after a space."""
    listed = WORD_LISTS[words]
    return [word for word in listed if not (_is_single(tokenizer, word) or _is_single(tokenizer, f" {word}"))]


def _is_single(tokenizer: Tokenizer, text: str) -> bool:
    ids = encode(tokenizer, [text])[0].ids
    return len(ids) == 1 and ids[0] != _unknown_id(tokenizer)
