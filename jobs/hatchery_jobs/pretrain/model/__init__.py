"""The model's family and sizes, and the weights to start from; all without torch.

May be imported by `training`, `report` and the modules beside this package; imports `data`, `hub` and `runtime`.
`training.model_factory` turns a `ModelConfig` into a model.
"""

from hatchery_jobs.pretrain.model.config import model_config, resolve_config
from hatchery_jobs.pretrain.model.families import MODEL_FAMILIES, ModelConfig
from hatchery_jobs.pretrain.model.weights import find_weights

__all__ = ["MODEL_FAMILIES", "ModelConfig", "find_weights", "model_config", "resolve_config"]
