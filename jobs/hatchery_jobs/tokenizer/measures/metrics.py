"""Quality of a tokenizer on held-out text; also checks that decoding restores every text."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from hatchery_api.conditions import Reason
from hatchery_api.resources.tokenizer import TokenizerMetrics
from hatchery_jobs.runtime import DataError
from hatchery_jobs.tokenizer.blocks import PROBES, is_byte_level, normalized
from hatchery_jobs.tokenizer.sample import SampledDocument

RARE_OCCURRENCES: Final = 10
"""A token seen less often than this in training is rare."""

Counts = npt.NDArray[np.int64]

_WORD: Final = re.compile(r"\S+")


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoding]:
    """Encodes texts without the special tokens of the post-processor."""
    return tokenizer.encode_batch(list(texts), add_special_tokens=False)


def count_ids(tokenizer: Tokenizer, batches: Iterable[Sequence[str]]) -> Counts:
    """Occurrences of each id in texts."""
    size = tokenizer.get_vocab_size()
    counts = np.zeros(size, np.int64)
    for texts in batches:
        ids = np.concatenate([np.array(encoding.ids, np.int64) for encoding in encode(tokenizer, texts)])
        counts += np.bincount(ids, minlength=size)
    return counts


def tokens_per_word(text: str, offsets: Sequence[tuple[int, int]]) -> Counts:
    """For each run of non-whitespace, the number of tokens that overlap it.

    Token offsets ascend, so this is the number of tokens that start before the word's end less the number that end
    before its start: two binary searches a word.
    """
    words = np.array([match.span() for match in _WORD.finditer(text)], np.int64).reshape(-1, 2)
    tokens = np.array(offsets, np.int64).reshape(-1, 2)
    started = np.searchsorted(tokens[:, 0], words[:, 1], side="left")
    ended = np.searchsorted(tokens[:, 1], words[:, 0], side="right")
    return started - ended


@dataclass
class Tally:
    """Sums over the held-out documents."""

    trained: Counts
    """Occurrences of each id in the training text."""
    unknown_id: int | None
    """Id of the unknown token, if there is one."""
    ids: Counts
    """Occurrences of each id here."""
    documents: int = 0
    unchanged: int = 0
    """Documents that decoding restores exactly."""
    chars: int = 0
    text_bytes: int = 0
    words: int = 0
    continued: int = 0
    """Words of two or more tokens."""

    def add(self, text: str, encoding: Encoding, *, unchanged: bool) -> None:
        """Adds a document."""
        parts = tokens_per_word(text, encoding.offsets)
        self.ids += np.bincount(encoding.ids, minlength=len(self.ids))
        self.documents += 1
        self.unchanged += unchanged
        self.chars += len(text)
        self.text_bytes += len(text.encode())
        self.words += len(parts)
        self.continued += int((parts > 1).sum())

    def share(self, chosen: Any) -> float:
        """Share of the tokens whose ids are chosen by an index or a mask."""
        return int(self.ids[chosen].sum()) / self.tokens

    @property
    def tokens(self) -> int:
        """Tokens, at least 1."""
        return max(1, int(self.ids.sum()))


class TokenizerMeasure(NamedTuple):
    """One field of TokenizerMetrics."""

    meaning: str
    """For the card."""
    value: Callable[[Tally], float]
    """Its value."""


MEASURES: Final = {
    "fertility": TokenizerMeasure(
        "tokens per word; a word is a run of non-whitespace", lambda tally: tally.tokens / max(1, tally.words)
    ),
    "continued_words": TokenizerMeasure(
        "share of words split into two or more tokens", lambda tally: tally.continued / max(1, tally.words)
    ),
    "unknown": TokenizerMeasure(
        "share of tokens that are the unknown token",
        lambda tally: 0.0 if tally.unknown_id is None else tally.share(tally.unknown_id),
    ),
    "rare": TokenizerMeasure(
        f"share of tokens seen fewer than {RARE_OCCURRENCES} times in training",
        lambda tally: tally.share(tally.trained < RARE_OCCURRENCES),
    ),
    "unused_vocabulary": TokenizerMeasure(
        "share of the vocabulary that never occurs here", lambda tally: int((tally.ids == 0).sum()) / len(tally.ids)
    ),
    "chars_per_token": TokenizerMeasure("characters per token", lambda tally: tally.chars / tally.tokens),
    "bytes_per_token": TokenizerMeasure("bytes of UTF-8 per token", lambda tally: tally.text_bytes / tally.tokens),
    "round_trip": TokenizerMeasure(
        "share of documents that decoding restores exactly", lambda tally: tally.unchanged / max(1, tally.documents)
    ),
}
"""Every field of TokenizerMetrics, in the order of the card."""


def measure_tokenizer(
    tokenizer: Tokenizer, batches: Iterable[list[SampledDocument]], trained: Counts
) -> TokenizerMetrics:
    """Measures a tokenizer on held-out documents.

    Args:
        tokenizer: the tokenizer.
        batches: the documents.
        trained: occurrences of each id in the training text.

    Raises:
        DataError: a byte-level tokenizer does not restore a text.
    """
    for probe in PROBES:
        _restores(tokenizer, SampledDocument("a probe", probe), encode(tokenizer, [probe])[0])
    tally = Tally(trained, unknown_id(tokenizer), np.zeros(len(trained), np.int64))
    for batch in batches:
        for document, encoding in zip(batch, encode(tokenizer, [d.text for d in batch]), strict=True):
            tally.add(document.text, encoding, unchanged=_restores(tokenizer, document, encoding))
    return TokenizerMetrics(**{name: entry.value(tally) for name, entry in MEASURES.items()})


def _restores(tokenizer: Tokenizer, document: SampledDocument, encoding: Encoding) -> bool:
    """Whether decoding gives the text back exactly.

    Raises:
        DataError: a byte-level tokenizer changes more than its normalizer does.
    """
    back = tokenizer.decode(encoding.ids, skip_special_tokens=False)
    if is_byte_level(tokenizer) and back != (text := normalized(tokenizer, document.text)):
        place = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back)))
        raise DataError(
            Reason.UNREADABLE_INPUT,
            f"{document.where}: decoding does not restore the text from character {place} on: "
            f"{text[place : place + 20]!r} becomes {back[place : place + 20]!r}; usually a special token that absorbs "
            "adjacent spaces: use other special tokens, or another base",
        )
    return back == document.text


def unknown_id(tokenizer: Tokenizer) -> int | None:
    """Id of the unknown token; None without one."""
    token = getattr(tokenizer.model, "unk_token", None)
    return None if token is None else tokenizer.token_to_id(token)
