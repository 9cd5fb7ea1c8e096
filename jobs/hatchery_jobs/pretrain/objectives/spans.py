"""T5's span corruption: how many spans a row has, and where. Free of torch, since row lengths depend on it."""

from dataclasses import dataclass

import numpy as np

from hatchery_api.resources.pretrain import Seq2seqSpec
from hatchery_jobs.pretrain.data import Tokens


@dataclass(frozen=True)
class Corruption:
    """How many tokens of a row are corrupted, in how many spans."""

    row_tokens: int
    """Tokens of a row of text."""
    noise_tokens: int
    """Tokens in corrupted spans."""
    spans: int
    """Spans, each a sentinel in the input and in the target."""

    @classmethod
    def of_row(cls, row_tokens: int, density: float, mean_span_tokens: float) -> "Corruption":
        """The numbers for a row, with at least one token kept and one corrupted."""
        noise = min(max(round(row_tokens * density), 1), row_tokens - 1)
        spans = max(round(noise / mean_span_tokens), 1)
        return cls(row_tokens, noise, min(spans, noise, row_tokens - noise))

    @classmethod
    def fitting(cls, spec: Seq2seqSpec, sequence_tokens: int) -> "Corruption":
        """The longest row whose input and target, each with its eos, fit into a sequence."""
        longest = cls.of_row(2, spec.noise_density, spec.mean_span_tokens)
        for row_tokens in range(3, 2 * sequence_tokens + 1):
            longer = cls.of_row(row_tokens, spec.noise_density, spec.mean_span_tokens)
            if max(longer.input_tokens, longer.target_tokens) > sequence_tokens:
                break
            longest = longer
        return longest

    @property
    def input_tokens(self) -> int:
        """Length of the encoder's input: the kept tokens, a sentinel per span, eos."""
        return self.row_tokens - self.noise_tokens + self.spans + 1

    @property
    def target_tokens(self) -> int:
        """Length of the decoder's target: each span after its sentinel, eos."""
        return self.noise_tokens + self.spans + 1

    def apply(self, row: Tokens, sentinels: Tokens, eos: int, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
        """Input and target of a row: spans at random positions, with kept tokens before each."""
        kept = _segments(self.row_tokens - self.noise_tokens, self.spans, rng)
        noise = _segments(self.noise_tokens, self.spans, rng)
        source: list[Tokens] = []
        target: list[Tokens] = []
        start = 0
        for number in range(self.spans):
            begins, ends = start + kept[number], start + kept[number] + noise[number]
            source += [row[start:begins], sentinels[number : number + 1]]
            target += [sentinels[number : number + 1], row[begins:ends]]
            start = ends
        end = np.array([eos], dtype=np.int64)
        return np.concatenate([*source, end]), np.concatenate([*target, end])


def _segments(items: int, segments: int, rng: np.random.Generator) -> Tokens:
    """Lengths of non-empty segments; all divisions are equally likely."""
    borders = np.sort(rng.permutation(items - 1)[: segments - 1]) + 1
    return np.diff(borders, prepend=0, append=items)
