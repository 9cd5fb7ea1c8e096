"""The kinds as data: whatever treats all kinds alike loops over `KINDS`.

A new kind is its models in `resources/`, an entry here, a stage module in the operator, and a package in the jobs.
"""

from dataclasses import dataclass
from typing import Final, Literal

from hatchery_api.placement import Resources, RunSpec
from hatchery_api.resources.corpus import CorpusBuildSpec, CorpusBuildStatus, CorpusResult
from hatchery_api.resources.evaluate import EvalResult, EvalRunSpec, EvalRunStatus
from hatchery_api.resources.pretrain import PretrainResult, PretrainRunSpec, PretrainRunStatus
from hatchery_api.resources.tokenizer import TokenizerBuildSpec, TokenizerBuildStatus, TokenizerResult
from hatchery_api.status import Result, RunStatus


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
    """Description of the column."""


@dataclass(frozen=True)
class StageJob:
    """One stage of a kind; its pods are one Job."""

    name: str
    """Name of the stage; no two kinds share one, since names of Jobs are made from it."""
    module: str
    """Module of the kind's package in the jobs whose function `run` does the work."""
    setting: str
    """Field of the operator's setting `stageResources`."""
    about: str
    """Description of that field."""
    resources: Resources
    """Default of that field."""
    repo_type: Literal["dataset", "model"] | None = None
    """Type of the Hub repository that its artifact is pushed to; None for an artifact that is never pushed."""
    commit_message: str = ""
    """First line of the commit; empty: kind, namespace, name and key of the artifact."""
    serves_metrics: bool = False
    """Whether the module serves `/metrics` itself; else the runtime does."""


@dataclass(frozen=True)
class Kind:
    """One custom resource."""

    kind: str
    """CamelCase name."""
    plural: str
    """Lower-case plural, the path of the API."""
    short: str
    """Short name for kubectl."""
    package: str
    """Name of its package in the jobs, and of its stage module in the operator."""
    spec: type[RunSpec]
    """Model of the spec."""
    status: type[RunStatus]
    """Model of the status."""
    result: type[Result]
    """Model of what a finished run reports."""
    jobs: tuple[StageJob, ...]
    """Stages in their order."""
    columns: tuple[Column, ...]
    """Columns of `kubectl get`."""

    @property
    def singular(self) -> str:
        """Lower-case singular."""
        return self.kind.lower()

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages in their order."""
        return tuple(job.name for job in self.jobs)

    def job(self, stage: str) -> StageJob:
        """The stage with a name.

        Raises:
            KeyError: the kind has no such stage.
        """
        return {job.name: job for job in self.jobs}[stage]


def _columns(*own: Column) -> tuple[Column, ...]:
    return (
        Column("State", '.status.conditions[?(@.type=="Succeeded")].reason', description="State of the run."),
        Column("Progress", ".status.progress.text", description="Progress of the current stage."),
        *own,
        Column("ETA", ".status.progress.eta", description="Estimated time left in the stage."),
        Column("Age", ".metadata.creationTimestamp", "date", description="Time since creation."),
        Column("Stage", ".status.currentStage", priority=1, description="Current stage."),
        Column("Attempts", ".status.attempts", "integer", 1, "Jobs created so far."),
        Column("Revision", ".status.hub.revision", priority=1, description="Commit on the Hub."),
        Column(
            "Message",
            '.status.conditions[?(@.type=="Succeeded")].message',
            priority=1,
            description="Explanation, with what to do.",
        ),
    )


def _requests(cpu: str, memory: str) -> Resources:
    return Resources(requests={"cpu": cpu, "memory": memory})


KINDS: Final[tuple[Kind, ...]] = (
    Kind(
        kind="CorpusBuild",
        plural="corpusbuilds",
        short="cb",
        package="corpus",
        spec=CorpusBuildSpec,
        status=CorpusBuildStatus,
        result=CorpusResult,
        jobs=(
            StageJob(
                name="build",
                module="pipeline",
                setting="corpus",
                about="CorpusBuild.",
                resources=_requests("500m", "2Gi"),
                repo_type="dataset",
            ),
        ),
        columns=_columns(
            Column("Documents", ".status.splits.train.rows", "integer", description="Documents in the train split.")
        ),
    ),
    Kind(
        kind="TokenizerBuild",
        plural="tokenizerbuilds",
        short="tb",
        package="tokenizer",
        spec=TokenizerBuildSpec,
        status=TokenizerBuildStatus,
        result=TokenizerResult,
        jobs=(
            StageJob(
                name="vocabulary",
                module="stage",
                setting="tokenizer",
                about="TokenizerBuild.",
                resources=_requests("500m", "2Gi"),
                repo_type="model",
            ),
        ),
        columns=_columns(Column("Vocabulary", ".status.vocabSize", "integer", description="Tokens in the vocabulary.")),
    ),
    Kind(
        kind="PretrainRun",
        plural="pretrainruns",
        short="pt",
        package="pretrain",
        spec=PretrainRunSpec,
        status=PretrainRunStatus,
        result=PretrainResult,
        jobs=(
            StageJob(
                name="encode",
                module="encode",
                setting="encode",
                about="PretrainRun while it encodes the corpus.",
                resources=_requests("500m", "1Gi"),
            ),
            StageJob(
                name="train",
                module="train",
                setting="pretrain",
                about="PretrainRun while it trains, each node.",
                resources=_requests("500m", "2Gi"),
                repo_type="model",
                commit_message="final model",  # the repository has a commit for each checkpoint too
                serves_metrics=True,
            ),
        ),
        columns=_columns(
            Column("Loss", ".status.progress.loss", description="Latest training loss."),
            Column("Perplexity", ".status.display.perplexity", description="Perplexity on the validation split."),
        ),
    ),
    Kind(
        kind="EvalRun",
        plural="evalruns",
        short="ev",
        package="evaluate",
        spec=EvalRunSpec,
        status=EvalRunStatus,
        result=EvalResult,
        jobs=(
            StageJob(
                name="evaluate",
                module="stage",
                setting="evaluate",
                about="EvalRun.",
                resources=_requests("500m", "2Gi"),
                repo_type="dataset",
            ),
        ),
        columns=_columns(
            Column("Metric", ".status.results[0].metric", description="Name of the first metric."),
            Column("Value", ".status.display.value", description="Value of the first metric."),
        ),
    ),
)
"""All kinds, in the order of the pipeline."""

BY_KIND: Final = {k.kind: k for k in KINDS}
"""Kinds by CamelCase name."""
