"""Another text: spans that sentinels stand for, or the other half of a pair of comment and code."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import Seq2seqSpec
from hatchery_jobs.pretrain.data.row_lengths import PAIR_SHARE
from hatchery_jobs.pretrain.data.types import DataSource, PairSource, Tokens
from hatchery_jobs.pretrain.data.vocabulary import Vocabulary
from hatchery_jobs.pretrain.objectives.base import IGNORED, Batch, Fed, Scorer
from hatchery_jobs.pretrain.objectives.rng import Draw, chance
from hatchery_jobs.pretrain.objectives.spans import Corruption
from hatchery_jobs.runtime import DataError


@dataclass(frozen=True)
class Padding:
    """How texts of a batch get one length."""

    sequence_tokens: int
    """Longest text, in tokens; longer ones are cut."""
    dynamic: bool
    """Pad to the longest of the batch, not to `sequence_tokens`."""
    multiple_of: int
    """Padded lengths are multiples of this, but never above `sequence_tokens`."""

    def padded(self, texts: list[Tokens], filler: int) -> Tokens:
        """Texts of at most `sequence_tokens` tokens, (B, T)."""
        longest = max(len(text) for text in texts) if self.dynamic else self.sequence_tokens
        length = min(-(-longest // self.multiple_of) * self.multiple_of, self.sequence_tokens)
        rows = np.full((len(texts), length), filler, dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            row[: len(text)] = text
        return rows


@dataclass(frozen=True)
class Ids:
    """Special ids of an encoder-decoder."""

    eos: int
    """Ends both texts."""
    pad: int
    """Padding, and what the decoder begins with."""

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> "Ids":
        """The ids of a vocabulary.

        Raises:
            DataError: there is no token for padding alone.
        """
        return cls(vocabulary.eos_id, vocabulary.special.padding())


def assembled(texts: list[tuple[Tokens, Tokens]], ids: Ids, padding: Padding, device: torch.device) -> Batch:
    """A batch of inputs and targets, each with its end; the decoder reads the targets one step late."""
    sources, targets = [source for source, _ in texts], [target for _, target in texts]
    labels = padding.padded(targets, IGNORED)
    read = np.roll(labels, 1, axis=1)
    read[:, 0] = ids.pad
    read[read == IGNORED] = ids.pad
    inputs = {"input_ids": padding.padded(sources, ids.pad), "decoder_input_ids": read}
    lengths = np.array([len(source) for source in sources])
    if (lengths < inputs["input_ids"].shape[1]).any():
        inputs["attention_mask"] = (np.arange(inputs["input_ids"].shape[1]) < lengths[:, None]).astype(np.int64)
    tensors = {name: torch.from_numpy(numbers).to(device) for name, numbers in inputs.items()}
    return Batch(tensors, torch.from_numpy(labels).to(device), sum(len(target) for target in targets))


class _EncoderDecoder(Fed):
    """What both tasks share."""

    def loss(self, model: Scorer, batch: Batch) -> torch.Tensor:
        """Summed cross-entropy of the targets; the model is not given them, as it would average on its own."""
        loss: torch.Tensor = model(batch, use_cache=False).logits
        return loss

    def bits_per_byte(self, _: float) -> float | None:
        """None: the targets are not all the text."""
        return None


@dataclass(frozen=True)
class SpanCorruption(_EncoderDecoder):
    """Spans of a row are replaced by sentinels and written by the decoder."""

    feed: DataSource
    """Rows of `corruption.row_tokens` tokens; the one after the last is not used."""
    corruption: Corruption
    """Numbers of tokens and spans."""
    sentinels: Tokens
    """Ids of the sentinels."""
    ids: Ids
    """End and padding."""
    padding: Padding
    """To the next multiple; all rows are equally long."""
    device: torch.device
    """Where batches go."""
    seed: int
    """Seed of the spans."""

    @classmethod
    def of(
        cls,
        spec: Seq2seqSpec,
        feed: DataSource,
        vocabulary: Vocabulary,
        padding: Padding,
        *,
        device: torch.device,
        seed: int,
    ) -> "SpanCorruption":
        """The objective of a spec.

        Raises:
            DataError: the tokenizer has fewer sentinels than a row has spans, or no padding.
        """
        corruption = Corruption.fitting(spec, padding.sequence_tokens)
        sentinels = np.array(vocabulary.special.sentinels, dtype=np.int64)
        if len(sentinels) < corruption.spans:
            raise DataError(
                Reason.VOCABULARY_MISMATCH,
                f"spec.tokenizerRef: a sequence of {padding.sequence_tokens} tokens has {corruption.spans} corrupted "
                f"spans, the tokenizer has {len(sentinels)} sentinel tokens <extra_id_0>, <extra_id_1> and so on; set "
                f"spec.specialTokens.sentinels of the TokenizerBuild to {corruption.spans} or more and build it again",
            )
        one_length = replace(padding, dynamic=True)  # all rows are equally long, and far shorter where they are targets
        return cls(feed, corruption, sentinels, Ids.of(vocabulary), one_length, device, seed)

    @property
    def nominal_targets(self) -> int:
        """Labels of a row."""
        return self.corruption.target_tokens

    def training(self, first: int, count: int) -> Batch:
        """The micro-batch at `count` positions of the run; another epoch corrupts other spans."""
        return self._batch(self.feed.training(first, count).tokens, first, validation=False)

    def validation(self, first: int, count: int) -> Batch:
        """A micro-batch of the validation split; the same spans are corrupted each time."""
        return self._batch(self.feed.validation(first, count).tokens, first, validation=True)

    def _batch(self, tokens: Tokens, first: int, *, validation: bool) -> Batch:
        texts = []
        for number, row in enumerate(tokens[:, :-1]):
            draw = chance(self.seed, Draw.SPANS, first + number, validation=validation)
            texts.append(self.corruption.apply(row, self.sentinels, self.ids.eos, draw))
        return assembled(texts, self.ids, self.padding, self.device)


@dataclass
class Pairs(_EncoderDecoder):
    """One half of a pair is read, the other written."""

    feed: PairSource
    """Pairs of comment and code."""
    to_code: bool
    """Whether the comment is read and the code written, or the other way round."""
    ids: Ids
    """End and padding."""
    padding: Padding
    """Longest text, and how a batch is padded."""
    device: torch.device
    """Where batches go."""
    texts_cut: int = 0
    """Texts so far that were longer than a sequence and lost their end."""

    @property
    def nominal_targets(self) -> int:
        """Labels expected in a pair."""
        return max(1, self.padding.sequence_tokens // PAIR_SHARE)

    def training(self, first: int, count: int) -> Batch:
        """The micro-batch at `count` positions of the run from `first` on."""
        return self._batch(self.feed.pairs(first, count))

    def validation(self, first: int, count: int) -> Batch:
        """A micro-batch of the validation split."""
        return self._batch(self.feed.validation_pairs(first, count))

    def _batch(self, pairs: list[tuple[Tokens, Tokens]]) -> Batch:
        ordered = pairs if self.to_code else [(code, comment) for comment, code in pairs]
        texts = [(self._ended(source), self._ended(target)) for source, target in ordered]
        return assembled(texts, self.ids, self.padding, self.device)

    def _ended(self, text: Tokens) -> Tokens:
        room = self.padding.sequence_tokens - 1
        self.texts_cut += len(text) > room
        return np.append(text[:room], self.ids.eos)
