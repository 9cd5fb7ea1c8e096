"""PretrainRun: everything a user may set, and what a run reports.

`spec` holds the spec, `model` and `objective` what is trained and what it learns, `result` the numbers of the status.
Every side imports the models from here.
"""

from hatchery_api.resources.pretrain.model import (
    Architecture,
    HubRevisionSource,
    ModelOverrides,
    PretrainModel,
    Weights,
)
from hatchery_api.resources.pretrain.objective import FAMILIES, Masked, Objective, Seq2seq
from hatchery_api.resources.pretrain.result import LastCheckpoint, Loss, PretrainResult
from hatchery_api.resources.pretrain.spec import (
    Batch,
    Checkpoint,
    Encode,
    Guard,
    LossSpike,
    Optimizer,
    Parallelism,
    PretrainData,
    PretrainEvaluate,
    PretrainRunSpec,
    Samples,
    Schedule,
    Shuffle,
    Tracking,
    TrainingCorpus,
    TrainingDataset,
    TrainingFiles,
    WandB,
)

__all__ = [
    "FAMILIES",
    "Architecture",
    "Batch",
    "Checkpoint",
    "Encode",
    "Guard",
    "HubRevisionSource",
    "LastCheckpoint",
    "Loss",
    "LossSpike",
    "Masked",
    "ModelOverrides",
    "Objective",
    "Optimizer",
    "Parallelism",
    "PretrainData",
    "PretrainEvaluate",
    "PretrainModel",
    "PretrainResult",
    "PretrainRunSpec",
    "Samples",
    "Schedule",
    "Seq2seq",
    "Shuffle",
    "Tracking",
    "TrainingCorpus",
    "TrainingDataset",
    "TrainingFiles",
    "WandB",
    "Weights",
]
