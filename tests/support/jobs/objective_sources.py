"""Rows and pairs in memory, and a small tokenizer with all special tokens, for tests of objectives."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from hatchery_api.resources.pretrain import FAMILIES, PretrainRunSpec
from hatchery_jobs.pretrain.data.types import Rows, Tokens
from hatchery_jobs.pretrain.data.vocabulary import SpecialIds, Vocabulary

SPECIAL_TOKENS = ["<|endoftext|>", "<pad>", "<mask>", "[CLS]", "[SEP]"]
SENTINELS = [f"<extra_id_{n}>" for n in range(16)]
SPECIAL = SpecialIds(
    eos=0, bos=0, pad=1, mask=2, cls=3, sep=4, sentinels=tuple(range(5, 21)), every=frozenset(range(21))
)
FAMILY = {objective: families[0] for objective, families in FAMILIES.items()}


@cache
def library_text() -> str:
    """A few modules of the standard library."""
    import argparse
    import json.decoder
    import textwrap

    return "".join(Path(m.__file__).read_text() for m in (argparse, json.decoder, textwrap))


@cache
def small_vocabulary(size: int = 320) -> Vocabulary:
    """Byte-level BPE over the library's text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(text, special=True) for text in [*SPECIAL_TOKENS, *SENTINELS]],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([library_text()], trainer)
    return Vocabulary(tokenizer, size, SPECIAL.eos, SPECIAL)


@dataclass
class ListSource:
    """Rows of given arrays; the run goes through the training rows over and over."""

    train: Tokens
    held_out: Tokens
    is_target: np.ndarray | None = None
    positions: Tokens | None = None

    @property
    def validation_rows(self) -> int:
        return len(self.held_out)

    def begin(self, first: int, count: int) -> None:
        pass

    def training(self, first: int, count: int) -> Rows:
        numbers = np.arange(first, first + count) % len(self.train)
        more = [None if part is None else part[numbers] for part in (self.is_target, self.positions)]
        return Rows(self.train[numbers], *more)

    def validation(self, first: int, count: int) -> Rows:
        return Rows(self.held_out[first : first + count])

    def close(self) -> None:
        pass


@dataclass
class ListPairSource:
    """Given pairs, over and over."""

    all: list[tuple[Tokens, Tokens]]

    @property
    def validation_rows(self) -> int:
        return len(self.all)

    def begin(self, first: int, count: int) -> None:
        pass

    def pairs(self, first: int, count: int) -> list[tuple[Tokens, Tokens]]:
        return [self.all[n % len(self.all)] for n in range(first, first + count)]

    def validation_pairs(self, first: int, count: int) -> list[tuple[Tokens, Tokens]]:
        return self.all[first : first + count]

    def close(self) -> None:
        pass


def library_rows(row_tokens: int) -> Tokens:
    """All the library's text as rows of `row_tokens` tokens and one more, the last one of a row the first of the
    next."""
    tokens = np.array(small_vocabulary().tokenizer.encode(library_text()).ids, dtype=np.int64)
    count = (len(tokens) - 1) // row_tokens
    return np.stack([tokens[n * row_tokens : (n + 1) * row_tokens + 1] for n in range(count)])


def objective_spec(kind: str, sequence: int = 32, settings: dict | None = None, **data) -> PretrainRunSpec:
    """A spec of one objective."""
    return PretrainRunSpec.model_validate(
        {
            "corpora": [{"corpusRef": {"name": "x"}}],
            "tokenizerRef": {"name": "x"},
            "objective": {"type": kind, **({kind: settings} if settings else {})},
            "model": {"architecture": FAMILY[kind], "size": "tiny"},
            "data": {"sequenceLength": sequence, **data},
            "schedule": {"steps": 2},
        }
    )
