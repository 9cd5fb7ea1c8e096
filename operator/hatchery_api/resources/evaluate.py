"""EvalRun: what a model can do."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from hatchery_api.base import Model, Record, Ref, ResourceName, Seed, cel, exactly_one
from hatchery_api.format import significant
from hatchery_api.placement import HubRepo, RunSpec, SecretKey
from hatchery_api.resources.tokenizer import CorpusRef
from hatchery_api.status import Result, RunStatus


class HubModel(Model):
    """A model on the Hub."""

    repo: HubRepo
    """Repository."""
    revision: Annotated[str, Field(min_length=1, max_length=128)] = "main"
    """Branch, tag or commit."""
    token_secret: SecretKey | None = None
    """Secret with a token that may read the model."""


class EvalModel(Model):
    """The model that is evaluated."""

    model_config = ConfigDict(json_schema_extra=cel(exactly_one("pretrainRef", "hub")))

    pretrain_ref: Ref | None = None
    """A PretrainRun in the same namespace."""
    hub: HubModel | None = None
    """A model on the Hub."""


class PerplexityTask(Model):
    """Perplexity: exp of the mean cross-entropy over all predicted tokens, each token counting once."""

    corpus_ref: CorpusRef
    """Text to measure on; mostly split validation."""

    sequence_length: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    """Tokens in a sequence; default: the longest the model can see."""

    batch_sequences: Annotated[int, Field(ge=1, le=4096)] = 16
    """Sequences in a batch; does not change the result."""

    max_batches: Annotated[int, Field(ge=-1)] = -1
    """Batches at most; -1 for all."""


Prompt = Annotated[str, Field(min_length=1, max_length=8192)]
"""The beginning of a text."""


class CompletionTask(Model):
    """Samples continuations of prompts."""

    preset: Literal["codeparrot", "none"] = "codeparrot"
    """Prompts of the CodeParrot chapter, asked before `prompts`."""

    prompts: Annotated[list[Prompt], Field(max_length=64)] = []
    """Further prompts."""

    temperature: Annotated[float, Field(ge=0, le=10)] = 0.4
    """Sampling temperature; 0 is greedy."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Nucleus: the smallest set of tokens with this probability is sampled from."""

    top_k: Annotated[int, Field(ge=0)] = 0
    """Sample from this many likeliest tokens; 0 for all."""

    max_length: Annotated[int, Field(ge=1, le=1_048_576)] = 64
    """Tokens in prompt and continuation together."""

    num_completions: Annotated[int, Field(ge=1, le=100)] = 4
    """Continuations of each prompt."""

    seed: Seed = 1
    """Seed of the sampling."""

    stop: Literal["firstTopLevelBlock", "none"] = "firstTopLevelBlock"
    """Cut before the first new top-level block of Python code."""


class EvalTask(Model):
    """One measurement."""

    model_config = ConfigDict(json_schema_extra=cel(exactly_one("perplexity", "completion")))

    name: ResourceName
    """Name of the task in the results."""

    perplexity: PerplexityTask | None = None
    """Perplexity on a corpus."""

    completion: CompletionTask | None = None
    """Continuations of prompts."""


class EvalRunSpec(RunSpec):
    """Evaluates a model."""

    model: EvalModel
    """The model."""

    tasks: Annotated[list[EvalTask], Field(min_length=1, max_length=32, json_schema_extra=cel(keyed_list="name"))]
    """Measurements, done in this order."""


class EvalMeasure(Record):
    """One number."""

    task: str
    """Name of the task."""
    metric: str
    """Name of the metric."""
    value: str
    """Value as text, since JSON has no infinity."""
    n: int
    """What it is a mean over: tokens for perplexity."""


class EvalSample(Record):
    """One continuation, shortened for the status; all are in the artifact."""

    task: str
    """Name of the task."""
    prompt: str
    """First characters of the prompt."""
    completion: str
    """First characters of the continuation."""


class EvalResult(Result):
    """What a finished EvalRun reports."""

    results: Annotated[list[EvalMeasure], Field(max_length=64)] = []
    """All measures."""

    samples: Annotated[list[EvalSample], Field(max_length=8)] = []
    """A few continuations."""

    def rounded(self) -> dict[str, str]:
        """The value of the first measure."""
        try:
            return {"value": significant(float(self.results[0].value))} if self.results else {}
        except ValueError:  # it comes from a pod
            return {}


class EvalRunStatus(RunStatus, EvalResult):
    """Status of an EvalRun."""
