"""Array types of the corpus stage, and the callback that its steps report to."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

Positions = npt.NDArray[np.int64]
"""Indices of documents in reading order."""

OnProgress = Callable[[int, int, str], None]
"""Called with done, total and unit after every batch; raises Interrupted on SIGTERM."""
