"""Hidden tokens, and whether two segments follow each other: BERT's two tasks.

A row of the feed is wrapped into [CLS] row [SEP], or cut into [CLS] A [SEP] B [SEP]. All rows are equally long, so
there is no padding, and the length of a pair tells nothing about whether its segments belong together.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from numpy.typing import NDArray

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import MaskedSpec
from hatchery_jobs.pretrain.data.types import DataSource, Tokens
from hatchery_jobs.pretrain.data.vocabulary import Vocabulary
from hatchery_jobs.pretrain.objectives.base import IGNORED, Batch, Fed, Scorer
from hatchery_jobs.pretrain.objectives.rng import Draw, chance
from hatchery_jobs.pretrain.objectives.words import Words
from hatchery_jobs.runtime import DataError

AS_MASK: Final = 0.8
"""Share of the chosen tokens that become the mask token."""

AS_RANDOM: Final = 0.1
"""Share of the chosen tokens that become a random one; the others stay."""

OTHER_ROWS: Final = 1 << 20
"""How far ahead in the run the row may be that a foreign segment is from."""

ATTEMPTS: Final = 32
"""Draws of another row before the corpus is said to have one row only."""


@dataclass(frozen=True)
class Masked(Fed):
    """Some tokens are hidden and predicted from both sides."""

    spec: MaskedSpec
    """Share, whole words, next sentence."""
    feed: DataSource
    """Rows of `row_tokens` tokens; the one after the last is not used."""
    vocabulary: Vocabulary
    """Special tokens and words."""
    device: torch.device
    """Where batches go."""
    row_tokens: int
    """Tokens of text in a row."""
    seed: int
    """Seed of all that is drawn."""
    words: Words | None
    """Words of the vocabulary, where they are chosen whole."""
    is_special: NDArray[np.bool_]
    """(V,), whether a token is special, and so neither chosen nor put into the place of another."""

    @classmethod
    def of(
        cls,
        spec: MaskedSpec,
        feed: DataSource,
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
        words = Words.of(vocabulary) if spec.whole_word else None
        return cls(spec, feed, vocabulary, device, row_tokens, seed, words, is_special)

    @property
    def nominal_targets(self) -> int:
        """Tokens chosen in a row without special tokens of its own."""
        return _share(self.spec.probability, self.row_tokens)

    def training(self, first: int, count: int) -> Batch:
        """The micro-batch at `count` positions of the run; another epoch hides other tokens."""
        return self._batch(first, count, validation=False)

    def validation(self, first: int, count: int) -> Batch:
        """A micro-batch of the validation split; the same tokens are hidden each time."""
        return self._batch(first, count, validation=True)

    def loss(self, model: Scorer, batch: Batch) -> torch.Tensor:
        """Summed cross-entropy of the hidden tokens, and of the next sentence as a mean of the same weight."""
        output = model(batch)
        loss: torch.Tensor = output.logits if batch.next_sentence is None else output.prediction_logits
        if batch.next_sentence is not None:
            follows = F.cross_entropy(output.seq_relationship_logits, batch.next_sentence, reduction="sum")
            loss = loss + self.nominal_targets * follows
        return loss

    def bits_per_byte(self, _: float) -> float | None:
        """None: the hidden tokens are a part of the text, seen from both sides."""
        return None

    def _batch(self, first: int, count: int, *, validation: bool) -> Batch:
        rows = self._rows(first, count, validation=validation)
        special = self.vocabulary.special
        sep, inputs, follows = special.needed("sep"), {}, None
        if self.spec.next_sentence:
            cuts, own = self._cut(rows, first, validation=validation)
            second = np.arange(rows.shape[1] + 3) > cuts[:, None] + 1  # (B, T): behind [CLS] A [SEP]
            inputs["token_type_ids"] = self._tensor(second.astype(np.int64))
            follows = self._tensor((~own).astype(np.int64))
            rows = np.stack([np.insert(row, cut, sep) for row, cut in zip(rows, cuts, strict=True)])
        tokens = np.pad(rows, ((0, 0), (1, 1)))
        tokens[:, 0], tokens[:, -1] = special.needed("cls"), sep
        labels = np.full_like(tokens, IGNORED)
        for n in range(count):
            self._hide(tokens[n], labels[n], first + n, validation=validation)
        inputs["input_ids"] = self._tensor(tokens)
        return Batch(inputs, self._tensor(labels), int((labels != IGNORED).sum()), follows)

    def _rows(self, first: int, count: int, *, validation: bool) -> Tokens:
        read = self.feed.validation if validation else self.feed.training
        return read(first, count).tokens[:, :-1].copy()

    def _tensor(self, numbers: Tokens) -> torch.Tensor:
        return torch.from_numpy(numbers).to(self.device)

    def _hide(self, tokens: Tokens, labels: Tokens, position: int, *, validation: bool) -> None:
        """Chooses tokens of one row, writes them into the labels and something else into their place."""
        draw = chance(self.seed, Draw.MASK, position, validation=validation)
        candidates = np.flatnonzero(~self.is_special[tokens])
        wanted = _share(self.spec.probability, len(candidates))
        if self.words is None:
            chosen = draw.permutation(candidates)[:wanted]
        else:
            chosen = _whole_words(candidates, self.words.begins(tokens)[candidates], wanted, draw)
        labels[chosen] = tokens[chosen]
        fate = draw.random(len(chosen))
        replacement = draw.choice(np.flatnonzero(~self.is_special), len(chosen))
        tokens[chosen[fate < AS_MASK]] = self.vocabulary.special.needed("mask")
        is_random = (fate >= AS_MASK) & (fate < AS_MASK + AS_RANDOM)
        tokens[chosen[is_random]] = replacement[is_random]

    def _cut(self, rows: Tokens, first: int, *, validation: bool) -> tuple[Tokens, NDArray[np.bool_]]:
        """Where each row is cut, and whether its second segment is its own; foreign ones are put into `rows`.

        Of two neighbouring positions one keeps its own, so exactly half do.
        """
        cuts = np.empty(len(rows), dtype=np.int64)
        own = np.empty(len(rows), dtype=np.bool_)
        for n, row in enumerate(rows):
            position = first + n
            draw = chance(self.seed, Draw.SEGMENTS, position, validation=validation)
            pair = chance(self.seed, Draw.CONSECUTIVE, position // 2, validation=validation)
            cuts[n] = self._place(row, draw)
            own[n] = position % 2 == pair.integers(2)
            if not own[n]:
                row[cuts[n] :] = self._other(row, position, draw, validation=validation)[cuts[n] :]
        return cuts, own

    def _place(self, row: Tokens, draw: np.random.Generator) -> int:
        """A place in the middle half of a row where a document goes on: what follows a document's end is no sequel."""
        quarter = max(1, len(row) // 4)
        places = np.arange(quarter, len(row) - quarter + 1)
        inside = places[row[places - 1] != self.vocabulary.eos_id]
        return int(draw.choice(inside if len(inside) else places))

    def _other(self, row: Tokens, position: int, draw: np.random.Generator, *, validation: bool) -> Tokens:
        """A row drawn from elsewhere, of a different text.

        Raises:
            DataError: there is none.
        """
        size = self.validation_rows
        for _ in range(ATTEMPTS):
            ahead = 1 + int(draw.integers(OTHER_ROWS))
            where = (position + ahead) % size if validation else position + ahead
            [other] = self._rows(where, 1, validation=validation)
            if not np.array_equal(other, row):
                return other
        raise DataError(
            Reason.NOT_ENOUGH_TEXT,
            f"spec.objective.masked.nextSentence: the {'validation' if validation else 'train'} split has one sequence "
            "only, and half of the segments must be from another; take more text, or a lower spec.data.sequenceLength",
        )


def _whole_words(candidates: Tokens, begins: NDArray[np.bool_], wanted: int, draw: np.random.Generator) -> Tokens:
    """Words in random order until their tokens are enough; a word that would be too much is passed over."""
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], len(candidates))
    chosen: list[Tokens] = []
    for word in draw.permutation(len(starts)):
        size = int(ends[word] - starts[word])
        if size <= wanted:
            chosen.append(candidates[starts[word] : ends[word]])
            wanted -= size
        if not wanted:
            break
    return np.concatenate(chosen) if chosen else candidates[:0]


def _share(probability: float, tokens: int) -> int:
    """Tokens to choose, at least one where there is any."""
    return min(tokens, max(1, round(probability * tokens)))
