"""PretrainRun: several pods encode the corpora into tokens, then a gang trains."""

from hatchery_api.base import parse_duration
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_operator.domain.stage import Need, PodShape, Stage, first_token

ENCODE, TRAIN = "encode", "train"


def _tokenizer(spec: PretrainRunSpec) -> Need:
    return Need("tokenizer", "TokenizerBuild", spec.tokenizer_ref.name)


def _corpora(spec: PretrainRunSpec) -> tuple[Need, ...]:
    """The first corpus has the role `corpus`, the others `corpus-1`, `corpus-2`, ...; only artifacts have a role."""
    roles = ("corpus" if not index else f"corpus-{index}" for index in range(len(spec.corpora)))
    corpora = zip(roles, spec.corpora, strict=True)
    return tuple(Need(role, "CorpusBuild", c.corpus_ref.name) for role, c in corpora if c.corpus_ref)


def _urls(spec: PretrainRunSpec) -> tuple[str, ...]:
    return tuple(url for corpus in spec.corpora if corpus.files for url in corpus.files.urls)


def _encode_needs(spec: PretrainRunSpec) -> tuple[Need, ...]:
    return (*_corpora(spec), _tokenizer(spec))


def _encode_shape(spec: PretrainRunSpec) -> PodShape:
    return PodShape(nodes=spec.encode.parallelism, uses_devices=False, urls=_urls(spec), token=spec.encode_token)


def _train_needs(spec: PretrainRunSpec) -> tuple[Need, ...]:
    streamed = _corpora(spec) if spec.data.loading == "streaming" else ()
    base = spec.model.from_.pretrain_ref if spec.model.from_ else None
    model = (Need("model", "PretrainRun", base.name),) if base else ()
    return (Need("tokens", name=ENCODE), _tokenizer(spec), *streamed, *model)


def _train_shape(spec: PretrainRunSpec) -> PodShape:
    streams = spec.data.loading == "streaming"
    resume, weights = spec.checkpoint.resume_from, spec.model.from_.hub if spec.model.from_ else None
    return PodShape(
        nodes=spec.parallelism.nodes,
        processes=spec.parallelism.processes_per_node,
        most_workers=spec.batch.sequences // spec.batch.per_device,
        grace_seconds=parse_duration(spec.checkpoint.grace_period),
        urls=_urls(spec) if streams else (),
        token=first_token(
            *(source.token_secret for source in (spec.hub, resume, weights) if source),
            spec.pull_token if streams else None,
        ),
        tracking_key=spec.tracking.wandb.secret if spec.tracking.wandb else None,
    )


STAGES = (Stage(ENCODE, _encode_needs, _encode_shape), Stage(TRAIN, _train_needs, _train_shape))
"""Stages of a PretrainRun."""
