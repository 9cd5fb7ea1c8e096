"""Counter-based random numbers: a draw depends on seed, stream and position alone, never on earlier draws."""

from enum import IntEnum

import numpy as np


class RngStream(IntEnum):
    """Independent streams of random numbers by purpose."""

    MASK = 1
    """Which tokens of a row are masked, and what replaces them."""
    SEGMENTS = 2
    """Where a row is split into two segments, and which row a random segment comes from."""
    CONSECUTIVE = 3
    """Which of two neighbouring rows keeps its own second segment."""
    SPANS = 4
    """Which spans of a row are corrupted."""


def row_generator(seed: int, stream: RngStream, position: int, *, validation: bool) -> np.random.Generator:
    """The generator of one row: the same on any worker, in any order, before and after a resume.

    Philox encrypts a counter with a key and keeps no other state. The high words of the counter separate streams and
    splits.
    """
    return np.random.Generator(np.random.Philox(counter=[0, 0, int(stream), int(validation)], key=[seed, position]))
