"""PretrainRun: one pod encodes the corpora into tokens, then a gang trains."""

from hatchery_api.base import parse_duration
from hatchery_api.pretrain import PretrainRunSpec
from hatchery_operator.stages.shape import Need, Shape, Stage, first_token

ENCODE, TRAIN = "encode", "train"


def _tokenizer(spec: PretrainRunSpec) -> Need:
    return Need("tokenizer", "TokenizerBuild", spec.tokenizer_ref.name)


def _encode_needs(spec: PretrainRunSpec) -> tuple[Need, ...]:
    """The first corpus has the role `corpus`, the others `corpus-1`, `corpus-2` and so on."""
    roles = ("corpus" if not index else f"corpus-{index}" for index in range(len(spec.corpora)))
    corpora = zip(roles, spec.corpora, strict=True)
    return (*(Need(role, "CorpusBuild", corpus.corpus_ref.name) for role, corpus in corpora), _tokenizer(spec))


def _encode_shape(_: PretrainRunSpec) -> Shape:
    return Shape(uses_devices=False)


def _train_needs(spec: PretrainRunSpec) -> tuple[Need, ...]:
    return Need("tokens", name=ENCODE), _tokenizer(spec)


def _train_shape(spec: PretrainRunSpec) -> Shape:
    resume, weights = spec.checkpoint.resume_from, spec.model.from_.hub if spec.model.from_ else None
    return Shape(
        nodes=spec.parallelism.nodes,
        processes=spec.parallelism.processes_per_node,
        most_workers=spec.batch.sequences // spec.batch.per_device,
        grace_seconds=parse_duration(spec.checkpoint.grace_period),
        token=first_token(*(source.token_secret for source in (spec.hub, resume, weights) if source)),
    )


STAGES = (Stage(ENCODE, _encode_needs, _encode_shape), Stage(TRAIN, _train_needs, _train_shape))
"""Stages of a PretrainRun."""
