"""All stages by kind."""

from typing import Final

from hatchery_api.kinds import KINDS
from hatchery_api.placement import RunSpec
from hatchery_operator.stages import corpus, evaluate, pretrain, tokenizer
from hatchery_operator.stages.base import Need, Stage

STAGES: Final[dict[str, tuple[Stage, ...]]] = {
    kind.kind: module.STAGES for kind, module in zip(KINDS, (corpus, tokenizer, pretrain, evaluate), strict=True)
}
"""Stages of each kind, in their order."""


def references(kind: str, spec: RunSpec) -> tuple[Need, ...]:
    """Artifacts of other resources that a spec names, over all its stages, each role once."""
    needs = (need for stage in STAGES[kind] for need in stage.needs(spec) if not need.is_own)
    return tuple({need.role: need for need in needs}.values())
