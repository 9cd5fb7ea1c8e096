"""The stages of each kind: the artifacts each needs, the shape of its pods and their resources, from the spec.

Pure: no I/O, no clock. A new kind adds a module here, named like its package in `KINDS`. `planning`, `manifests` and
`controller` may import this package; it imports `domain` and the settings.
"""

from importlib import import_module
from typing import Final

from hatchery_api.kinds import KINDS
from hatchery_api.placement import RunSpec
from hatchery_operator.domain.stage import Need, Stage
from hatchery_operator.stages.resources import misfit, pod_resources, processes

STAGES: Final[dict[str, tuple[Stage, ...]]] = {
    kind.kind: import_module(f"hatchery_operator.stages.{kind.package}").STAGES for kind in KINDS
}
"""Stages of each kind, in order."""


def references(kind: str, spec: RunSpec) -> tuple[Need, ...]:
    """Artifacts of other resources that a spec names, over all its stages, each role once."""
    needs = (need for stage in STAGES[kind] for need in stage.needs(spec) if not need.is_own)
    return tuple({need.role: need for need in needs}.values())


__all__ = ["STAGES", "misfit", "pod_resources", "processes", "references"]
