"""EvalRun: measures a model."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from hatchery_api.base import Model, Record, Ref, ResourceName, Seed, cel, exactly_one, one_field
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
    """Secret with a token that can read the model."""


class EvalModel(Model):
    """Model to evaluate."""

    model_config = ConfigDict(json_schema_extra=one_field)

    pretrain_ref: Ref | None = None
    """A PretrainRun in the same namespace."""
    hub: HubModel | None = None
    """A model on the Hub."""


class PerplexityTask(Model):
    """Perplexity: exp of the mean cross-entropy over all predicted tokens, each counted once."""

    corpus_ref: CorpusRef
    """Text to measure on; usually split validation."""

    sequence_length: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    """Tokens per sequence; default: the model's context length."""

    batch_sequences: Annotated[int, Field(ge=1, le=4096)] = 16
    """Sequences per batch; does not affect the result."""

    max_batches: Annotated[int, Field(ge=-1)] = -1
    """Most batches; -1: all."""


Prompt = Annotated[str, Field(min_length=1, max_length=8192)]
"""A prompt to complete."""


class CompletionTask(Model):
    """Samples completions of prompts."""

    preset: Literal["codeparrot", "none"] = "codeparrot"
    """`codeparrot`: the prompts of the CodeParrot chapter, used before `prompts`."""

    prompts: Annotated[list[Prompt], Field(max_length=64)] = []
    """Further prompts."""

    temperature: Annotated[float, Field(ge=0, le=10)] = 0.4
    """Sampling temperature; 0 is greedy."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Nucleus sampling: sample from the smallest set of tokens with this total probability."""

    top_k: Annotated[int, Field(ge=0)] = 0
    """Sample from this many likeliest tokens; 0: all."""

    max_length: Annotated[int, Field(ge=1, le=1_048_576)] = 64
    """Most tokens of prompt and completion together."""

    num_completions: Annotated[int, Field(ge=1, le=100)] = 4
    """Completions per prompt."""

    seed: Seed = 1
    """Seed for sampling."""

    stop: Literal["firstTopLevelBlock", "none"] = "firstTopLevelBlock"
    """`firstTopLevelBlock` cuts before the next top-level block of Python code."""


class EvalTask(Model):
    """An evaluation task."""

    model_config = ConfigDict(json_schema_extra=cel(exactly_one("perplexity", "completion")))

    name: ResourceName
    """Name of the task in the results."""

    perplexity: PerplexityTask | None = None
    """Perplexity on a corpus."""

    completion: CompletionTask | None = None
    """Completions of prompts."""


class EvalRunSpec(RunSpec):
    """Evaluates a model."""

    model: EvalModel
    """Model to evaluate."""

    tasks: Annotated[list[EvalTask], Field(min_length=1, max_length=32, json_schema_extra=cel(keyed_list="name"))]
    """Tasks, run in this order."""


class EvalMeasure(Record):
    """A measured value."""

    task: str
    """Name of the task."""
    metric: str
    """Name of the metric."""
    value: str
    """Value as text, since JSON has no infinity."""
    n: int
    """Number of items averaged: tokens for perplexity."""


class EvalSample(Record):
    """A completion, shortened for the status; the artifact has all in full."""

    task: str
    """Name of the task."""
    prompt: str
    """Beginning of the prompt."""
    completion: str
    """Beginning of the completion."""


class EvalResult(Result):
    """What a finished EvalRun reports."""

    results: Annotated[list[EvalMeasure], Field(max_length=64)] = []
    """Measured values."""

    samples: Annotated[list[EvalSample], Field(max_length=8)] = []
    """Sample completions."""

    def rounded(self) -> dict[str, str]:
        """The first measured value."""
        try:
            return {"value": significant(float(self.results[0].value))} if self.results else {}
        except ValueError:  # reported by a pod, so not trusted
            return {}


class EvalRunStatus(RunStatus, EvalResult):
    """Status of an EvalRun."""
