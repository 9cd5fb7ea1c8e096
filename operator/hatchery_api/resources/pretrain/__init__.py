"""PretrainRun: everything a user may set, and what a run reports.

`spec` holds the spec, `model` and `objective` what is trained and what it learns, `result` the numbers of the status.
Every side imports the models from here.
"""

from hatchery_api.resources.pretrain.model import (
    HubRevisionSource,
    ModelOverrides,
    PretrainModel,
    WeightsSpec,
)
from hatchery_api.resources.pretrain.objective import FAMILIES, Architecture, MaskedSpec, ObjectiveSpec, Seq2seqSpec
from hatchery_api.resources.pretrain.result import LastCheckpoint, Loss, PretrainResult, PretrainRunStatus
from hatchery_api.resources.pretrain.spec import (
    BatchSpec,
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
    ScheduleSpec,
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
    "BatchSpec",
    "Checkpoint",
    "Encode",
    "Guard",
    "HubRevisionSource",
    "LastCheckpoint",
    "Loss",
    "LossSpike",
    "MaskedSpec",
    "ModelOverrides",
    "ObjectiveSpec",
    "Optimizer",
    "Parallelism",
    "PretrainData",
    "PretrainEvaluate",
    "PretrainModel",
    "PretrainResult",
    "PretrainRunSpec",
    "PretrainRunStatus",
    "Samples",
    "ScheduleSpec",
    "Seq2seqSpec",
    "Shuffle",
    "Tracking",
    "TrainingCorpus",
    "TrainingDataset",
    "TrainingFiles",
    "WandB",
    "WeightsSpec",
]
