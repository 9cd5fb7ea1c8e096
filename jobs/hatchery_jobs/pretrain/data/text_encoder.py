"""Text to token ids, by the fastest library that reproduces the tokenizer.

A byte-level BPE tokenizer is rebuilt for tiktoken, which is several times faster. Every file is verified: its first
documents and a seeded sample of the others are encoded by both libraries, and any difference makes the tokenizer itself
encode the whole file. The bytes of all tokens are counted too, so no text is lost.
"""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import tiktoken
from numpy.typing import NDArray
from tokenizers import Tokenizer

TokenIds = NDArray[np.uint32]
"""Token ids of one document."""

VERIFIED_FIRST: Final = 8
"""Documents at the beginning of a file that both libraries encode."""

VERIFIED_SHARE: Final = 1 / 256
"""Share of the other documents that both libraries encode."""

_WORDS: Final = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++"
"""Contractions, words, numbers and punctuation; possessive, as backtracking could not shorten a match."""

GPT2_PATTERN: Final = _WORDS + r"|\s++$|\s+(?!\S)|\s"
"""Pattern of the ByteLevel pre-tokenizer."""

DIGITS_PATTERN: Final = r"\p{N}|" + _WORDS + r"|\s++$|\s+(?![^\s\p{N}])|\s"
"""Pattern of ByteLevel between single digits: spaces before a digit end the piece before it."""


class EncoderMismatch(Exception):  # noqa: N818 - a signal to the caller, not an error
    """The fast encoder gives other ids for a document, or loses text."""


class FastEncoder:
    """Encodes with tiktoken and maps its ranks, the order of merges, to the tokenizer's ids."""

    def __init__(self, encoding: tiktoken.Encoding, ids: TokenIds, sizes: TokenIds) -> None:
        """An encoder.

        Args:
            encoding: encodes text to ranks.
            ids: the tokenizer's id of each rank.
            sizes: bytes of the token of each rank.
        """
        self._encoding = encoding
        self._ids = ids
        self._sizes = sizes
        threads = len(os.sched_getaffinity(0))
        self._map: Callable[..., Any] = ThreadPoolExecutor(threads).map if threads > 1 else map

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        """Ids of each text.

        Raises:
            EncoderMismatch: the tokens do not cover the texts.
        """
        ranks = list(self._map(self._ranks, texts))
        joined = np.concatenate([np.empty(0, dtype=np.uint32), *ranks])
        if int(self._sizes[joined].sum(dtype=np.int64)) != sum(map(utf8_bytes, texts)):
            raise EncoderMismatch
        return np.split(self._ids[joined], np.cumsum([len(document) for document in ranks])[:-1]) if ranks else []

    def _ranks(self, text: str) -> TokenIds:
        return self._encoding.encode_to_numpy(text, disallowed_special=())


class FileEncoder:
    """Encodes the documents of one file and verifies a sample of them."""

    def __init__(self, tokenizer: Tokenizer, fast: FastEncoder | None, seed: int) -> None:
        """An encoder for a file; without a fast encoder it never raises `EncoderMismatch`."""
        self._tokenizer = tokenizer
        self._fast = fast
        self._random = np.random.default_rng(seed)
        self._done = 0

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        """Ids of each text, without special tokens.

        Raises:
            EncoderMismatch: the file must be encoded without the fast encoder.
        """
        if self._fast is None:
            return self._exact(texts)
        ids = self._fast.encode(texts)
        chosen = self._random.random(len(texts)) < VERIFIED_SHARE
        chosen[: max(0, VERIFIED_FIRST - self._done)] = True
        self._done += len(texts)
        numbers = np.flatnonzero(chosen).tolist()
        for number, exact in zip(numbers, self._exact([texts[n] for n in numbers]), strict=True):
            if not np.array_equal(ids[number], exact):
                raise EncoderMismatch
        return ids

    def _exact(self, texts: Sequence[str]) -> list[TokenIds]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.asarray(encoding.ids, dtype=np.uint32) for encoding in encodings]


def utf8_bytes(text: str) -> int:
    """Bytes of a text as UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def fast_encoder(tokenizer: Tokenizer) -> FastEncoder | None:
    """A tokenizer rebuilt for tiktoken; None where that is not possible."""
    design = json.loads(tokenizer.to_str())
    model, pattern = design["model"], _pattern(design["pre_tokenizer"])
    is_plain = not any(model.get(k) for k in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
    only_special = all(token["special"] for token in design["added_tokens"])
    if model["type"] != "BPE" or pattern is None or design["normalizer"] or not (is_plain and only_special):
        return None
    tokens = _tokens_by_rank(model["vocab"], model["merges"])
    if tokens is None:
        return None
    ranks = {token: rank for rank, (token, _) in enumerate(tokens)}
    encoding = tiktoken.Encoding("rebuilt", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    ids = np.asarray([number for _, number in tokens], dtype=np.uint32)
    return FastEncoder(encoding, ids, np.asarray([len(token) for token, _ in tokens], dtype=np.uint32))


def _pattern(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """The regular expression that matches the pieces of a pre-tokenizer; None where none is known."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer])
    match steps:
        case [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            return GPT2_PATTERN
        case [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        ]:
            return DIGITS_PATTERN
        case [
            {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ]:
            return pattern
    return None


def _tokens_by_rank(vocab: dict[str, int], merges: Sequence[Any]) -> list[tuple[bytes, int]] | None:
    """Bytes and id of every token in the order of merges; None when some byte has no token."""
    byte_of = {letter: byte for byte, letter in enumerate(byte_letters())}
    if not byte_of.keys() <= vocab.keys():
        return None
    tokens = {bytes([byte]): vocab[letter] for letter, byte in byte_of.items()}
    for merge in merges:
        text = merge.replace(" ", "") if isinstance(merge, str) else "".join(merge)
        if not byte_of.keys() >= set(text):
            return None
        tokens.setdefault(bytes(byte_of[letter] for letter in text), vocab[text])
    return list(tokens.items())


def byte_letters() -> list[str]:
    """The letter that stands for each byte in a byte-level vocabulary: itself if printable, else one above 255."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    above = iter(range(256, 512))
    return [chr(byte if byte in printable else next(above)) for byte in range(256)]
