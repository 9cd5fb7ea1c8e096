"""A tokenizer and its special tokens, read without transformers, which takes seconds to import."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from hatchery_api.conditions import Reason
from hatchery_api.resources.tokenizer import SENTINEL
from hatchery_jobs.runtime import DataError

TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
)
"""Files that AutoTokenizer reads, where present."""


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copies a tokenizer's files into a model's folder."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the special tokens by role; None where the tokenizer has no such role."""

    eos: int
    """Ends every document."""
    bos: int | None = None
    """Begins a text."""
    pad: int | None = None
    """Padding."""
    mask: int | None = None
    """Stands for a hidden token."""
    cls: int | None = None
    """Begins a row of an encoder; where it is missing, bos, as in RoBERTa."""
    sep: int | None = None
    """Ends a segment of an encoder; where it is missing, eos, as in RoBERTa."""
    sentinels: tuple[int, ...] = ()
    """Ids of `<extra_id_0>`, `<extra_id_1>` and so on up to the first gap."""
    every: frozenset[int] = frozenset()
    """All special tokens, those without a role included; none of them is text."""

    def needed(self, role: str) -> int:
        """The id of a required role.

        Raises:
            DataError: the tokenizer has none.
        """
        number: int | None = getattr(self, role)
        if number is None:
            raise DataError(
                Reason.VOCABULARY_MISMATCH,
                f"spec.tokenizerRef: the tokenizer has no {role}_token, which this objective needs; set "
                f"spec.specialTokens.{role} of the TokenizerBuild and build it again",
            )
        return number

    def padding(self) -> int:
        """The id of padding for models that ignore it; no other role may share it.

        Raises:
            DataError: there is none, or another role has the same token.
        """
        number = self.needed("pad")
        if number in (self.eos, self.bos, self.cls, self.sep, self.mask):
            raise DataError(
                Reason.VOCABULARY_MISMATCH,
                f"spec.tokenizerRef: the pad_token, id {number}, is another special token too, whose embedding would "
                "never be trained; set spec.specialTokens.pad of the TokenizerBuild to a token of its own, for "
                "example <pad>, and build it again",
            )
        return number


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer and its size."""

    tokenizer: Tokenizer
    """The tokenizer; it encodes text that looks like a special token as plain text."""
    size: int
    """Tokens, added ones included: `len` of the loaded tokenizer."""
    eos_id: int
    """Id of the end-of-text token, which follows every document."""
    special: SpecialIds
    """All special tokens by their roles."""


def load_vocabulary(folder: Path) -> Vocabulary:
    """Reads a tokenizer's folder.

    Raises:
        DataError: it is unreadable, its ids have gaps, or it has neither eos nor sep to end a document with.
    """
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        config = json.loads((folder / "tokenizer_config.json").read_text())
    except Exception as error:  # the tokenizers library raises bare Exception
        raise DataError(
            Reason.UNREADABLE_INPUT,
            f"{folder}: cannot be read as a fast tokenizer ({error}); build the tokenizer again",
        ) from error
    tokenizer.encode_special_tokens = True  # a file that spells out the end-of-text token must not end a document
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if highest >= size:
        raise DataError(
            Reason.VOCABULARY_MISMATCH,
            f"{folder}/tokenizer.json: token id {highest} is not below the vocabulary size {size}; "
            "the ids must be consecutive: build the tokenizer again",
        )
    special = _special_ids(folder, config, tokenizer)
    return Vocabulary(tokenizer, size, special.eos, special)


def _special_ids(folder: Path, config: dict[str, Any], tokenizer: Tokenizer) -> SpecialIds:
    ids = {role: _id_of(config.get(f"{role}_token"), tokenizer) for role in ("eos", "bos", "pad", "mask", "cls", "sep")}
    bos, eos = ids["bos"], ids["eos"]
    cls, sep = (ids["cls"] if ids["cls"] is not None else bos), (ids["sep"] if ids["sep"] is not None else eos)
    ends = eos if eos is not None else sep  # BERT's tokenizers have no other token to end a document with
    if ends is None:
        raise DataError(
            Reason.VOCABULARY_MISMATCH,
            f"{folder}/tokenizer_config.json: eos_token is {config.get('eos_token')!r}, which is no token of the "
            "vocabulary; documents are separated by it: build the tokenizer with an end-of-text token",
        )
    sentinels: list[int] = []
    while (number := tokenizer.token_to_id(SENTINEL.format(len(sentinels)))) is not None:
        sentinels.append(number)
    every = {n for n, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    every |= {n for n in (*ids.values(), *sentinels) if n is not None}
    return SpecialIds(ends, bos, ids["pad"], ids["mask"], cls, sep, tuple(sentinels), frozenset(every))


def _id_of(role: str | dict[str, str] | None, tokenizer: Tokenizer) -> int | None:
    text = role["content"] if isinstance(role, dict) else role
    return None if text is None else tokenizer.token_to_id(text)
