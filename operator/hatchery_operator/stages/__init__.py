"""The stages of each kind: the artifacts each needs and the shape of its pods, as pure functions of the spec.

A new kind adds a module here and its line in `STAGES`. `manifests`, `planning`, `controller`, `kube` and `telemetry`
may import it; it imports only `hatchery_api`.
"""

from typing import Final

from hatchery_api.placement import RunSpec
from hatchery_operator.stages import corpus, evaluate, pretrain, tokenizer
from hatchery_operator.stages.base import Need, PodShape, Stage
from hatchery_operator.stages.pretrain import TRAIN

STAGES: Final[dict[str, tuple[Stage, ...]]] = {
    "CorpusBuild": corpus.STAGES,
    "TokenizerBuild": tokenizer.STAGES,
    "PretrainRun": pretrain.STAGES,
    "EvalRun": evaluate.STAGES,
}
"""Stages of each kind, in order."""


def find_stage(kind: str, name: str) -> Stage:
    """One stage of a kind."""
    return next(stage for stage in STAGES[kind] if stage.name == name)


def references(kind: str, spec: RunSpec) -> tuple[Need, ...]:
    """Artifacts of other resources that a spec names, over all its stages, each role once."""
    needs = (need for stage in STAGES[kind] for need in stage.needs(spec) if not need.is_own)
    return tuple({need.role: need for need in needs}.values())


__all__ = ["STAGES", "TRAIN", "Need", "PodShape", "Stage", "find_stage", "references"]
