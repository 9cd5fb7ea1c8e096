"""Training objectives: they turn rows of tokens into batches, and a model's output into a loss.

`OBJECTIVES` describes each objective. Importing this package does not import torch, so encode, preflight and report may
use it; `build_objective` imports the implementation. May be imported by `training`, `report`, `model` and the modules
beside this package; imports `data` alone.
"""

from hatchery_jobs.pretrain.objectives.base import IGNORED, Batch, Objective
from hatchery_jobs.pretrain.objectives.registry import (
    OBJECTIVES,
    build_objective,
    objective_info,
    row_tokens,
)

__all__ = [
    "IGNORED",
    "OBJECTIVES",
    "Batch",
    "Objective",
    "build_objective",
    "objective_info",
    "row_tokens",
]
