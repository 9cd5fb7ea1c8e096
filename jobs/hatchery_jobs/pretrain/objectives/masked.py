"""Masked language modelling and next-sentence prediction: BERT's two tasks.

A row is wrapped into [CLS] row [SEP], or split into [CLS] A [SEP] B [SEP]. All rows have the same length, so there is
no padding, and the length of a pair does not reveal whether its segments belong together.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual alias
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import MaskedSpec, PretrainRunSpec
from hatchery_jobs.pretrain.data import DataSource, Tokens, Vocabulary
from hatchery_jobs.pretrain.objectives.base import IGNORED, Batch, Scorer, SourceObjective
from hatchery_jobs.pretrain.objectives.registry import row_tokens
from hatchery_jobs.pretrain.objectives.rng import RngStream, row_generator
from hatchery_jobs.runtime import DataError

MASK_SHARE: Final = 0.8
"""Share of the chosen tokens replaced by the mask token."""

RANDOM_SHARE: Final = 0.1
"""Share of the chosen tokens replaced by a random token; the rest stay."""

RANDOM_ROW_DISTANCE: Final = 1 << 20
"""How far ahead in the run a random second segment may come from, in rows."""

MAX_DRAWS: Final = 32
"""Draws of another row before the split is taken to have a single distinct row."""

WORD_PIECE_PREFIX: Final = "##"
"""How WordPiece marks a token inside a word."""

PARTIAL_CHARACTER: Final = "\ufffd"
"""What bytes that are not a whole character decode to."""


@dataclass(frozen=True)
class WordBoundaries:
    """For every token of a vocabulary, whether a word can continue at either end; arrays of (V,)."""

    continues: NDArray[np.bool_]
    """Whether the token can continue the word of the token before it."""
    is_open: NDArray[np.bool_]
    """Whether the word can continue after the token."""

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> "WordBoundaries":
        """The word boundaries of a vocabulary.

        WordPiece marks tokens inside a word. Byte-level and SentencePiece tokenizers keep the space before a word as
        its first character, so a word continues where letters, digits or underscores meet.
        """
        tokenizer = vocabulary.tokenizer
        texts = [tokenizer.id_to_token(n) or "" for n in range(vocabulary.size)]
        if isinstance(tokenizer.decoder, decoders.WordPiece):
            continues, is_open = [text.startswith(WORD_PIECE_PREFIX) for text in texts], [True] * len(texts)
        else:
            texts = _decoded(tokenizer, texts)
            continues, is_open = [_in_word(text[:1]) for text in texts], [_in_word(text[-1:]) for text in texts]
        boundaries = cls(np.array(continues, dtype=np.bool_), np.array(is_open, dtype=np.bool_))
        special = sorted(vocabulary.special.every)
        boundaries.continues[special] = boundaries.is_open[special] = False
        return boundaries

    def begins(self, tokens: Tokens) -> NDArray[np.bool_]:
        """(T,), whether each token of a row begins a word."""
        inside = self.continues[tokens]
        inside[1:] &= self.is_open[tokens[:-1]]
        inside[:1] = False
        return ~inside


def _decoded(tokenizer: Tokenizer, texts: list[str]) -> list[str]:
    """Texts of tokens; byte-level vocabularies write a character per byte."""
    if not isinstance(tokenizer.decoder, decoders.ByteLevel):
        return texts
    return [tokenizer.decoder.decode([text]) for text in texts]


def _in_word(character: str) -> bool:
    return character.isalnum() or character in ("_", PARTIAL_CHARACTER)


@dataclass(frozen=True)
class Masked(SourceObjective):
    """Some tokens are masked and predicted from both sides."""

    spec: MaskedSpec
    """Share, whole words, next sentence."""
    source: DataSource
    """Rows of `row_tokens` tokens; the token after the last is unused."""
    vocabulary: Vocabulary
    """Special tokens and words."""
    device: torch.device
    """Where batches go."""
    row_tokens: int
    """Tokens of text in a row."""
    seed: int
    """Seed of all random draws."""
    words: WordBoundaries | None
    """Where tokens begin words, if words are masked whole."""
    is_special: NDArray[np.bool_]
    """(V,), whether a token is special: such tokens are neither masked nor used as random replacements."""

    @classmethod
    def of(
        cls,
        spec: MaskedSpec,
        source: DataSource,
        vocabulary: Vocabulary,
        device: torch.device,
        *,
        row_tokens: int,
        seed: int,
    ) -> "Masked":
        """The objective of a spec.

        Raises:
            DataError: the tokenizer has no token for mask, cls, sep or pad.
        """
        special = vocabulary.special
        for role in ("mask", "cls", "sep"):
            special.needed(role)
        special.padding()
        is_special = np.zeros(vocabulary.size, dtype=np.bool_)
        is_special[sorted(special.every)] = True
        words = WordBoundaries.of(vocabulary) if spec.whole_word else None
        return cls(spec, source, vocabulary, device, row_tokens, seed, words, is_special)

    @property
    def nominal_targets(self) -> int:
        """Tokens masked in a row without special tokens in its text."""
        return _share(self.spec.probability, self.row_tokens)

    def training(self, first: int, count: int) -> Batch:
        """The micro-batch at `count` positions of the run; each epoch masks other tokens."""
        return self._batch(first, count, validation=False)

    def validation(self, first: int, count: int) -> Batch:
        """A micro-batch of the validation split; the same tokens are masked every time."""
        return self._batch(first, count, validation=True)

    def loss(self, model: Scorer, batch: Batch) -> torch.Tensor:
        """Summed cross-entropy of the masked tokens, plus next-sentence loss scaled to the same weight per row."""
        output = model(batch)
        loss: torch.Tensor = output.logits if batch.next_sentence is None else output.prediction_logits
        if batch.next_sentence is not None:
            follows = F.cross_entropy(output.seq_relationship_logits, batch.next_sentence, reduction="sum")
            loss = loss + self.nominal_targets * follows
        return loss

    def bits_per_byte(self, _: float) -> float | None:
        """None: masked tokens are only a part of the text, and are predicted from both sides."""
        return None

    def _batch(self, first: int, count: int, *, validation: bool) -> Batch:
        rows = self._rows(first, count, validation=validation)
        special = self.vocabulary.special
        sep, inputs, follows = special.needed("sep"), {}, None
        if self.spec.next_sentence:
            cuts, own = self._cut(rows, first, validation=validation)
            second = np.arange(rows.shape[1] + 3) > cuts[:, None] + 1  # (B, T): after [CLS] A [SEP]
            inputs["token_type_ids"] = self._tensor(second.astype(np.int64))
            follows = self._tensor((~own).astype(np.int64))
            rows = np.stack([np.insert(row, cut, sep) for row, cut in zip(rows, cuts, strict=True)])
        tokens = np.pad(rows, ((0, 0), (1, 1)))
        tokens[:, 0], tokens[:, -1] = special.needed("cls"), sep
        labels = np.full_like(tokens, IGNORED)
        for n in range(count):
            self._mask(tokens[n], labels[n], first + n, validation=validation)
        inputs["input_ids"] = self._tensor(tokens)
        return Batch(inputs, self._tensor(labels), int((labels != IGNORED).sum()), follows)

    def _rows(self, first: int, count: int, *, validation: bool) -> Tokens:
        read = self.source.validation if validation else self.source.training
        return read(first, count).tokens[:, :-1].copy()

    def _tensor(self, numbers: Tokens) -> torch.Tensor:
        return torch.from_numpy(numbers).to(self.device)

    def _mask(self, tokens: Tokens, labels: Tokens, position: int, *, validation: bool) -> None:
        """Masks tokens of one row in place and writes the originals into the labels."""
        rng = row_generator(self.seed, RngStream.MASK, position, validation=validation)
        candidates = np.flatnonzero(~self.is_special[tokens])
        wanted = _share(self.spec.probability, len(candidates))
        if self.words is None:
            chosen = rng.permutation(candidates)[:wanted]
        else:
            chosen = _whole_words(candidates, self.words.begins(tokens)[candidates], wanted, rng)
        labels[chosen] = tokens[chosen]
        roll = rng.random(len(chosen))
        replacement = rng.choice(np.flatnonzero(~self.is_special), len(chosen))
        tokens[chosen[roll < MASK_SHARE]] = self.vocabulary.special.needed("mask")
        is_random = (roll >= MASK_SHARE) & (roll < MASK_SHARE + RANDOM_SHARE)
        tokens[chosen[is_random]] = replacement[is_random]

    def _cut(self, rows: Tokens, first: int, *, validation: bool) -> tuple[Tokens, NDArray[np.bool_]]:
        """Where each row is cut, and whether it keeps its own second segment; writes random segments into `rows`.

        One of two neighbouring positions keeps its own, so exactly half do.
        """
        cuts = np.empty(len(rows), dtype=np.int64)
        own = np.empty(len(rows), dtype=np.bool_)
        for n, row in enumerate(rows):
            position = first + n
            rng = row_generator(self.seed, RngStream.SEGMENTS, position, validation=validation)
            pair = row_generator(self.seed, RngStream.CONSECUTIVE, position // 2, validation=validation)
            cuts[n] = self._cut_position(row, rng)
            own[n] = position % 2 == pair.integers(2)
            if not own[n]:
                row[cuts[n] :] = self._other_row(row, position, rng, validation=validation)[cuts[n] :]
        return cuts, own

    def _cut_position(self, row: Tokens, rng: np.random.Generator) -> int:
        """A random position in the middle half of a row, preferably inside a document and not at its end."""
        quarter = max(1, len(row) // 4)
        positions = np.arange(quarter, len(row) - quarter + 1)
        inside = positions[row[positions - 1] != self.vocabulary.eos_id]
        return int(rng.choice(inside if len(inside) else positions))

    def _other_row(self, row: Tokens, position: int, rng: np.random.Generator, *, validation: bool) -> Tokens:
        """A random row with different text.

        Raises:
            DataError: there is none.
        """
        size = self.validation_rows
        for _ in range(MAX_DRAWS):
            ahead = 1 + int(rng.integers(RANDOM_ROW_DISTANCE))
            where = (position + ahead) % size if validation else position + ahead
            [other] = self._rows(where, 1, validation=validation)
            if not np.array_equal(other, row):
                return other
        raise DataError(
            Reason.NOT_ENOUGH_TEXT,
            f"spec.objective.masked.nextSentence: the {'validation' if validation else 'train'} split has only "
            "one distinct sequence, and half of the segments must come from another; add text or lower "
            "spec.data.sequenceLength",
        )


def _whole_words(candidates: Tokens, begins: NDArray[np.bool_], wanted: int, rng: np.random.Generator) -> Tokens:
    """Tokens of whole words in random order, up to `wanted`; a word that would exceed it is skipped."""
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], len(candidates))
    chosen: list[Tokens] = []
    for word in rng.permutation(len(starts)):
        size = int(ends[word] - starts[word])
        if size <= wanted:
            chosen.append(candidates[starts[word] : ends[word]])
            wanted -= size
        if not wanted:
            break
    return np.concatenate(chosen) if chosen else candidates[:0]


def _share(probability: float, tokens: int) -> int:
    """Tokens to mask: at least one, if there are any."""
    return min(tokens, max(1, round(probability * tokens)))


def build(
    spec: PretrainRunSpec,
    vocabulary: Vocabulary,
    source: DataSource,
    device: torch.device,
    _tokens_per_byte: float | None,
) -> Masked:
    """The objective of a spec."""
    settings = spec.objective.masked or MaskedSpec()
    seed = spec.data.shuffle.seed
    return Masked.of(settings, source, vocabulary, device, row_tokens=row_tokens(spec), seed=seed)
