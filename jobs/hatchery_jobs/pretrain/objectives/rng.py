"""Randomness as a function: what is drawn depends on seed, purpose and position, never on what was drawn before."""

from enum import IntEnum

import numpy as np


class Draw(IntEnum):
    """What chance decides; each has its own numbers."""

    MASK = 1
    """Which tokens of a row are hidden, and behind what."""
    SEGMENTS = 2
    """Where a row is cut into two segments, and which other row a segment is from."""
    CONSECUTIVE = 3
    """Which one of two neighbouring rows keeps its own second segment."""
    SPANS = 4
    """Which spans of a row are corrupted."""


def chance(seed: int, draw: Draw, position: int, *, validation: bool) -> np.random.Generator:
    """The numbers of one row: the same on any worker, in any order, before and after a resume.

    Philox encrypts a counter with a key, so no state has to be kept; the high words of the counter keep purposes and
    splits apart.
    """
    return np.random.Generator(np.random.Philox(counter=[0, 0, int(draw), int(validation)], key=[seed, position]))
