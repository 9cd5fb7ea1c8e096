"""Rows of tokens, and the sources that objectives read them from."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]
"""Token ids, positions, or row numbers."""


@dataclass(frozen=True)
class Rows:
    """B sequences of T tokens; each token but the first is the target of the one before it."""

    tokens: Tokens
    """(B, T + 1)."""
    is_target: NDArray[np.bool_] | None = None
    """(B, T), true where the target counts; None: everywhere."""
    positions: Tokens | None = None
    """(B, T), position of each input in its own document; None: documents are not kept apart."""


class DataSource(Protocol):
    """Rows by position in the run. A position is the same row for any number of workers, before and after a resume."""

    @property
    def validation_rows(self) -> int:
        """Rows of the validation split."""

    def begin(self, first: int, count: int) -> None:
        """Announces the positions of the next update; a collective call of all workers."""

    def training(self, first: int, count: int) -> Rows:
        """Rows at `count` positions, starting with `first`."""

    def validation(self, first: int, count: int) -> Rows:
        """Rows of the validation split by number."""

    def close(self) -> None:
        """Releases threads and files."""


class PairSource(Protocol):
    """Pairs of comment and code by position in the run, without special tokens. A position is the same pair for any
    number of workers, before and after a resume.
    """

    @property
    def validation_rows(self) -> int:
        """Pairs of the validation split."""

    def begin(self, first: int, count: int) -> None:
        """Announces the positions of the next update; a collective call of all workers."""

    def pairs(self, first: int, count: int) -> list[tuple[Tokens, Tokens]]:
        """Pairs at `count` positions, starting with `first`."""

    def validation_pairs(self, first: int, count: int) -> list[tuple[Tokens, Tokens]]:
        """Pairs of the validation split by number."""

    def close(self) -> None:
        """Releases threads and files."""
