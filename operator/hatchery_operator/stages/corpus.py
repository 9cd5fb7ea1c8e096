"""CorpusBuild: one pod reads sources and writes the corpus."""

from hatchery_api.resources.corpus import CorpusBuildSpec
from hatchery_operator.domain.stage import Need, PodShape, Stage, first_token


def _needs(_: CorpusBuildSpec) -> tuple[Need, ...]:
    return ()


def _shape(spec: CorpusBuildSpec) -> PodShape:
    pull = first_token(*(source.hub.token_secret for source in spec.sources if source.hub))
    return PodShape(
        urls=tuple(url for source in spec.sources if source.files for url in source.files.urls),
        token=first_token(spec.hub.token_secret if spec.hub else None, pull),
    )


STAGES = (Stage("build", _needs, _shape),)
"""Stages of a CorpusBuild."""
