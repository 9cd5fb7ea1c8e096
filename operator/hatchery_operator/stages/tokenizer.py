"""TokenizerBuild: one pod trains and measures a tokenizer."""

from hatchery_api.resources.tokenizer import TokenizerBuildSpec
from hatchery_operator.domain.stage import Need, PodShape, Stage


def _needs(spec: TokenizerBuildSpec) -> tuple[Need, ...]:
    return (Need("corpus", "CorpusBuild", spec.corpus_ref.name),)


def _shape(spec: TokenizerBuildSpec) -> PodShape:
    return PodShape(
        urls=(spec.from_.base,) if spec.from_ else (),
        token=spec.hub.token_secret if spec.hub else None,
    )


STAGES = (Stage("vocabulary", _needs, _shape),)
"""Stages of a TokenizerBuild."""
