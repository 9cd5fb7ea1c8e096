"""Train and validation: a hash of the cluster, or of the document, decides."""

from typing import Final

import numpy as np
import numpy.typing as npt

from hatchery_api.resources.corpus import Split
from hatchery_jobs.corpus.dedup.minhash import U64
from hatchery_jobs.readers import uniform_hash

SPLITS: Final = ("train", "validation")
"""Names of the splits, as `datasets` knows them."""


def in_validation(split: Split, identities: U64, clusters: U64) -> npt.NDArray[np.bool_]:
    """Whether each document goes to validation.

    A group (cluster, or document with `by: fraction`) goes there when its number in [0, 1) is below the share, so
    `validation * groups` go there on average and a group's side never depends on the other groups; but with a positive
    share and two groups, neither side stays empty: the group nearest to the border then changes sides.
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
