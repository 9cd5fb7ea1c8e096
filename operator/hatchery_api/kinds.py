"""The four kinds as data: everything else loops over `KINDS`."""

from dataclasses import dataclass
from typing import Final

from hatchery_api.base import Record
from hatchery_api.placement import RunSpec
from hatchery_api.resources.corpus import CorpusBuildSpec, CorpusResult
from hatchery_api.resources.evaluate import EvalResult, EvalRunSpec
from hatchery_api.resources.pretrain import PretrainResult, PretrainRunSpec
from hatchery_api.resources.tokenizer import TokenizerBuildSpec, TokenizerResult
from hatchery_api.status import (
    CorpusBuildStatus,
    EvalRunStatus,
    PretrainRunStatus,
    RunStatus,
    TokenizerBuildStatus,
)


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    """Heading."""
    path: str
    """JSONPath of the value."""
    type: str = "string"
    """Type of the value."""
    priority: int = 0
    """1 shows it only with `-o wide`."""
    description: str = ""
    """What it says."""


@dataclass(frozen=True)
class Kind:
    """One custom resource."""

    kind: str
    """CamelCase name."""
    plural: str
    """Lower-case plural, the path of the API."""
    short: str
    """Short name for kubectl."""
    spec: type[RunSpec]
    """Model of the spec."""
    status: type[RunStatus]
    """Model of the status."""
    result: type[Record]
    """Model of what a finished run reports."""
    stages: tuple[str, ...]
    """Stages in their order; each is one Job. No two kinds share a stage name: names of Jobs are made from it."""
    columns: tuple[Column, ...]
    """Columns of `kubectl get`."""

    @property
    def singular(self) -> str:
        """Lower-case singular."""
        return self.kind.lower()


def _columns(*own: Column) -> tuple[Column, ...]:
    return (
        Column("State", '.status.conditions[?(@.type=="Succeeded")].reason', description="What the run does now."),
        Column("Progress", ".status.progress.text", description="How far the current stage is."),
        *own,
        Column("ETA", ".status.progress.eta", description="Estimated time left in this stage."),
        Column("Age", ".metadata.creationTimestamp", "date", description="Time since creation."),
        Column("Stage", ".status.currentStage", priority=1, description="Stage that works now."),
        Column("Attempts", ".status.attempts", "integer", 1, "Jobs created so far."),
        Column("Revision", ".status.hub.revision", priority=1, description="Commit on the Hub."),
        Column(
            "Message",
            '.status.conditions[?(@.type=="Succeeded")].message',
            priority=1,
            description="What to know or to do.",
        ),
    )


KINDS: Final[tuple[Kind, ...]] = (
    Kind(
        "CorpusBuild",
        "corpusbuilds",
        "cb",
        CorpusBuildSpec,
        CorpusBuildStatus,
        CorpusResult,
        ("build",),
        _columns(Column("Documents", ".status.splits.train.rows", "integer", description="Training documents.")),
    ),
    Kind(
        "TokenizerBuild",
        "tokenizerbuilds",
        "tb",
        TokenizerBuildSpec,
        TokenizerBuildStatus,
        TokenizerResult,
        ("vocabulary",),
        _columns(Column("Vocabulary", ".status.vocabSize", "integer", description="Tokens in the vocabulary.")),
    ),
    Kind(
        "PretrainRun",
        "pretrainruns",
        "pt",
        PretrainRunSpec,
        PretrainRunStatus,
        PretrainResult,
        ("encode", "train"),
        _columns(
            Column(
                "Loss",
                '.status.progress.metrics[?(@.name=="loss")].value',
                description="Training loss of the last report.",
            ),
            Column("Perplexity", ".status.perplexity", "number", description="On the validation split."),
        ),
    ),
    Kind(
        "EvalRun",
        "evalruns",
        "ev",
        EvalRunSpec,
        EvalRunStatus,
        EvalResult,
        ("evaluate",),
        _columns(
            Column("Metric", ".status.results[0].metric", description="First metric."),
            Column("Value", ".status.results[0].value", description="Its value."),
        ),
    ),
)
"""All kinds, in the order of the pipeline."""

BY_KIND: Final = {k.kind: k for k in KINDS}
"""Kinds by CamelCase name."""
