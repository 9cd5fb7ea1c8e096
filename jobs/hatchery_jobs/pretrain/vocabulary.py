"""What encoding and training must know of a tokenizer, read without transformers, which takes seconds to import."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from hatchery_api.conditions import Reason
from hatchery_jobs.errors import DataError

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
"""Files that AutoTokenizer may read; those a tokenizer has go into the model's folder too."""


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer and its size."""

    tokenizer: Tokenizer
    """The tokenizer; text that looks like a special token is encoded as the text it is."""
    size: int
    """Tokens, added ones included: what `len` of the loaded tokenizer says."""
    eos_id: int
    """Id of the end-of-text token that ends every document."""


def load_vocabulary(folder: Path) -> Vocabulary:
    """Reads a tokenizer's folder.

    Raises:
        DataError: it is unreadable, its ids have gaps, or it has no end-of-text token.
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
    return Vocabulary(tokenizer, size, _eos_id(folder, config.get("eos_token"), tokenizer))


def _eos_id(folder: Path, eos: str | dict[str, str] | None, tokenizer: Tokenizer) -> int:
    text = eos["content"] if isinstance(eos, dict) else eos
    number = None if text is None else tokenizer.token_to_id(text)
    if number is None:
        raise DataError(
            Reason.VOCABULARY_MISMATCH,
            f"{folder}/tokenizer_config.json: eos_token is {text!r}, which is no token of the vocabulary; documents "
            "are separated by it: build the tokenizer with an end-of-text token",
        )
    return number
