"""What the loop reads: rows of tokens, by their position in the run."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]
"""Token ids, positions, or numbers of rows."""


@dataclass(frozen=True)
class Rows:
    """Rows of B sequences of T tokens, each token but the first the target of the one before it."""

    tokens: Tokens
    """(B, T + 1)."""
    learnt: NDArray[np.bool_] | None = None
    """(B, T), true where the target counts; None: all do."""
    positions: Tokens | None = None
    """(B, T), position of each input in its own document; None: documents are not told apart."""


class DataSource(Protocol):
    """Where rows come from. Position p of the run is the same row for any number of workers, before and after a
    resume.
    """

    @property
    def validation_rows(self) -> int:
        """Rows of the validation split."""

    def begin(self, first: int, count: int) -> None:
        """All workers say at the same point which positions the next update takes; a store has nothing to do."""

    def training(self, first: int, count: int) -> Rows:
        """The rows at `count` positions from `first` on."""

    def validation(self, first: int, count: int) -> Rows:
        """Rows of the validation split by number."""

    def close(self) -> None:
        """Frees what it holds."""


class PairSource(Protocol):
    """Where pairs of texts come from: a comment and its code, as tokens without anything around them. Position p of
    the run is the same pair for any number of workers, before and after a resume.
    """

    @property
    def validation_rows(self) -> int:
        """Pairs of the validation split."""

    def begin(self, first: int, count: int) -> None:
        """All workers say at the same point which positions the next update takes; a store has nothing to do."""

    def pairs(self, first: int, count: int) -> list[tuple[Tokens, Tokens]]:
        """The pairs at `count` positions from `first` on."""

    def validation_pairs(self, first: int, count: int) -> list[tuple[Tokens, Tokens]]:
        """Pairs of the validation split by number."""

    def close(self) -> None:
        """Frees what it holds."""
