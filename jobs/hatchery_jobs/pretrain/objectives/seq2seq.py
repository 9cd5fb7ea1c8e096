"""Encoder-decoder objectives: T5's span corruption, and translation between comment and code."""

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import PretrainRunSpec, Seq2seqSpec
from hatchery_jobs.pretrain.data import DataSource, PairSource, Tokens, Vocabulary
from hatchery_jobs.pretrain.objectives.base import IGNORED, Batch, Scorer, SourceObjective
from hatchery_jobs.pretrain.objectives.registry import PAIR_TARGET_DIVISOR
from hatchery_jobs.pretrain.objectives.rng import RngStream, row_generator
from hatchery_jobs.pretrain.objectives.spans import Corruption
from hatchery_jobs.runtime import DataError


@dataclass(frozen=True)
class Padding:
    """How the texts of a batch are padded to one length."""

    sequence_tokens: int
    """Longest text in tokens; longer ones are truncated."""
    dynamic: bool
    """Pad to the longest text of the batch instead of `sequence_tokens`."""
    multiple_of: int
    """Padded lengths are multiples of this, capped at `sequence_tokens`."""

    def pad(self, texts: list[Tokens], filler: int) -> Tokens:
        """(B, T) of texts of at most `sequence_tokens` tokens."""
        longest = max(len(text) for text in texts) if self.dynamic else self.sequence_tokens
        length = min(-(-longest // self.multiple_of) * self.multiple_of, self.sequence_tokens)
        rows = np.full((len(texts), length), filler, dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            row[: len(text)] = text
        return rows


@dataclass(frozen=True)
class BoundaryIds:
    """Special ids of an encoder-decoder."""

    eos: int
    """Ends both texts."""
    pad: int
    """Padding, and the first input of the decoder."""

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> "BoundaryIds":
        """The ids of a vocabulary.

        Raises:
            DataError: there is no token reserved for padding.
        """
        return cls(vocabulary.eos_id, vocabulary.special.padding())


def collate(texts: list[tuple[Tokens, Tokens]], ids: BoundaryIds, padding: Padding, device: torch.device) -> Batch:
    """A batch of inputs and targets, each ended by eos; the decoder reads the targets shifted right by one."""
    sources, targets = [source for source, _ in texts], [target for _, target in texts]
    labels = padding.pad(targets, IGNORED)
    shifted = np.roll(labels, 1, axis=1)
    shifted[:, 0] = ids.pad
    shifted[shifted == IGNORED] = ids.pad
    inputs = {"input_ids": padding.pad(sources, ids.pad), "decoder_input_ids": shifted}
    lengths = np.array([len(source) for source in sources])
    if (lengths < inputs["input_ids"].shape[1]).any():
        inputs["attention_mask"] = (np.arange(inputs["input_ids"].shape[1]) < lengths[:, None]).astype(np.int64)
    tensors = {name: torch.from_numpy(numbers).to(device) for name, numbers in inputs.items()}
    return Batch(tensors, torch.from_numpy(labels).to(device), sum(len(target) for target in targets))


class _EncoderDecoder(SourceObjective):
    """Base of both tasks."""

    def loss(self, model: Scorer, batch: Batch) -> torch.Tensor:
        """Summed cross-entropy of the targets. The model does not get the labels: it would average the loss itself."""
        loss: torch.Tensor = model(batch, use_cache=False).logits
        return loss

    def bits_per_byte(self, _: float) -> float | None:
        """None: targets are only a part of the text."""
        return None


@dataclass(frozen=True)
class SpanCorruption(_EncoderDecoder):
    """The encoder reads a row with sentinels in place of spans; the decoder writes the spans."""

    source: DataSource
    """Rows of `corruption.row_tokens` tokens; the token after the last is unused."""
    corruption: Corruption
    """Number of tokens and spans."""
    sentinels: Tokens
    """Ids of the sentinels."""
    ids: BoundaryIds
    """eos and padding."""
    padding: Padding
    """Pads to the next multiple; all rows have the same length."""
    device: torch.device
    """Where batches go."""
    seed: int
    """Seed of the spans."""

    @classmethod
    def of(
        cls,
        spec: Seq2seqSpec,
        source: DataSource,
        vocabulary: Vocabulary,
        padding: Padding,
        *,
        device: torch.device,
        seed: int,
    ) -> "SpanCorruption":
        """The objective of a spec.

        Raises:
            DataError: the tokenizer has fewer sentinels than a row has spans, or no padding token.
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
        dynamic = replace(padding, dynamic=True)  # all rows have one length, and targets are far shorter than inputs
        return cls(source, corruption, sentinels, BoundaryIds.of(vocabulary), dynamic, device, seed)

    @property
    def nominal_targets(self) -> int:
        """Labels of a row."""
        return self.corruption.target_tokens

    def training(self, first: int, count: int) -> Batch:
        """The micro-batch at `count` positions of the run; each epoch corrupts other spans."""
        return self._batch(self.source.training(first, count).tokens, first, validation=False)

    def validation(self, first: int, count: int) -> Batch:
        """A micro-batch of the validation split; the same spans are corrupted every time."""
        return self._batch(self.source.validation(first, count).tokens, first, validation=True)

    def _batch(self, tokens: Tokens, first: int, *, validation: bool) -> Batch:
        texts = []
        for number, row in enumerate(tokens[:, :-1]):
            rng = row_generator(self.seed, RngStream.SPANS, first + number, validation=validation)
            texts.append(self.corruption.apply(row, self.sentinels, self.ids.eos, rng))
        return collate(texts, self.ids, self.padding, self.device)


@dataclass
class Pairs(_EncoderDecoder):
    """The encoder reads one half of a pair, the decoder writes the other."""

    source: PairSource
    """Pairs of comment and code."""
    to_code: bool
    """Whether the decoder writes the code; otherwise the comment."""
    ids: BoundaryIds
    """eos and padding."""
    padding: Padding
    """Longest text and padding."""
    device: torch.device
    """Where batches go."""
    truncated: int = 0
    """Texts truncated to a sequence so far."""

    @property
    def nominal_targets(self) -> int:
        """Labels expected per pair."""
        return max(1, self.padding.sequence_tokens // PAIR_TARGET_DIVISOR)

    def training(self, first: int, count: int) -> Batch:
        """The micro-batch at `count` positions of the run, starting with `first`."""
        return self._batch(self.source.pairs(first, count))

    def validation(self, first: int, count: int) -> Batch:
        """A micro-batch of the validation split."""
        return self._batch(self.source.validation_pairs(first, count))

    def _batch(self, pairs: list[tuple[Tokens, Tokens]]) -> Batch:
        ordered = pairs if self.to_code else [(code, comment) for comment, code in pairs]
        texts = [(self._with_eos(source), self._with_eos(target)) for source, target in ordered]
        return collate(texts, self.ids, self.padding, self.device)

    def _with_eos(self, text: Tokens) -> Tokens:
        room = self.padding.sequence_tokens - 1
        self.truncated += len(text) > room
        return np.append(text[:room], self.ids.eos)


def build(
    spec: PretrainRunSpec,
    vocabulary: Vocabulary,
    source: DataSource | PairSource,
    device: torch.device,
    _tokens_per_byte: float | None,
) -> SpanCorruption | Pairs:
    """The objective of a spec."""
    data, settings = spec.data, spec.objective.seq2seq or Seq2seqSpec()
    padding = Padding(data.sequence_length, data.dynamic_padding, data.pad_to_multiple_of)
    if settings.task == "spanCorruption":
        rows, seed = cast("DataSource", source), data.shuffle.seed
        return SpanCorruption.of(settings, rows, vocabulary, padding, device=device, seed=seed)
    pairs = cast("PairSource", source)
    return Pairs(pairs, settings.task == "commentToCode", BoundaryIds.of(vocabulary), padding, device)
