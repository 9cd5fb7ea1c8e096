"""The stages of each kind: the artifacts each needs and the shape of its pods, as pure functions of the spec.

A new kind adds a module here, named like its package in `KINDS`. `manifests`, `planning` and `controller` may import
it; it imports only `hatchery_api`.
"""

from importlib import import_module
from typing import Final

from hatchery_api.kinds import KINDS
from hatchery_api.placement import RunSpec
from hatchery_operator.stages.base import Need, PodShape, Stage

STAGES: Final[dict[str, tuple[Stage, ...]]] = {
    kind.kind: import_module(f"hatchery_operator.stages.{kind.package}").STAGES for kind in KINDS
}
"""Stages of each kind, in order."""


def find_stage(kind: str, name: str) -> Stage:
    """One stage of a kind."""
    return next(stage for stage in STAGES[kind] if stage.name == name)


def references(kind: str, spec: RunSpec) -> tuple[Need, ...]:
    """Artifacts of other resources that a spec names, over all its stages, each role once."""
    needs = (need for stage in STAGES[kind] for need in stage.needs(spec) if not need.is_own)
    return tuple({need.role: need for need in needs}.values())


__all__ = ["STAGES", "Need", "PodShape", "Stage", "find_stage", "references"]
