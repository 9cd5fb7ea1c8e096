"""Splits into train and validation by a hash of the cluster or of the document."""

from typing import Final

import numpy as np
import numpy.typing as npt

from hatchery_api.resources.corpus import Split
from hatchery_jobs.corpus.types import U64
from hatchery_jobs.readers import uniform_hash

SPLITS: Final = ("train", "validation")
"""Names of the splits, as `datasets` knows them."""


def in_validation(split: Split, identities: U64, clusters: U64) -> npt.NDArray[np.bool_]:
    """Whether each document goes to validation.

    A group (a cluster, or a document with `by: fraction`) is in validation when its hash in [0, 1) is below the share.
    So `validation * groups` are there on average, and no group's split depends on the others. With a positive share
    and at least two groups neither split is empty: the group nearest to the threshold moves.
    """
    groups, members = np.unique(clusters if split.by == "cluster" else identities, return_inverse=True)
    drawn = np.array([uniform_hash(group, split.seed, "split") for group in groups.tolist()])
    chosen = drawn < split.validation
    if len(groups) == 1:
        chosen[:] = False
    elif chosen.all():
        chosen[drawn.argmax()] = False
    elif split.validation > 0 and not chosen.any():
        chosen[drawn.argmin()] = True
    return np.asarray(chosen[members], np.bool_)
