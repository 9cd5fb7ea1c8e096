"""All stages by kind."""

from importlib import import_module
from typing import Final

from hatchery_api.kinds import KINDS
from hatchery_api.placement import RunSpec
from hatchery_operator.stages.base import Need, Stage

STAGES: Final[dict[str, tuple[Stage, ...]]] = {
    kind.kind: import_module(f"hatchery_operator.stages.{kind.package}").STAGES for kind in KINDS
}
"""Stages of each kind, in their order; the module of a kind has the name of its package."""


def references(kind: str, spec: RunSpec) -> tuple[Need, ...]:
    """Artifacts of other resources that a spec names, over all its stages, each role once."""
    needs = (need for stage in STAGES[kind] for need in stage.needs(spec) if not need.is_own)
    return tuple({need.role: need for need in needs}.values())
