"""EvalRun: one pod evaluates a model."""

from hatchery_api.resources.evaluate import EvalRunSpec
from hatchery_operator.domain.stage import Need, PodShape, Stage, first_token


def _needs(spec: EvalRunSpec) -> tuple[Need, ...]:
    model = (Need("model", "PretrainRun", spec.model.pretrain_ref.name),) if spec.model.pretrain_ref else ()
    corpora = (
        Need(f"corpus-{task.name}", "CorpusBuild", task.perplexity.corpus_ref.name)
        for task in spec.tasks
        if task.perplexity
    )
    return (*model, *corpora)


def _shape(spec: EvalRunSpec) -> PodShape:
    pull = spec.model.hub.token_secret if spec.model.hub else None
    return PodShape(token=first_token(spec.hub.token_secret if spec.hub else None, pull))


STAGES = (Stage("evaluate", _needs, _shape),)
"""Stages of an EvalRun."""
