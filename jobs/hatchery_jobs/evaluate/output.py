"""The output of an evaluation: results.json, samples.jsonl, the card, and the summary for the status."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from itertools import chain, zip_longest
from typing import Any, Final

from hatchery_api import __version__
from hatchery_api.format import shortened, significant
from hatchery_api.resources.evaluate import EvalMeasure, EvalResult, EvalRunSpec, EvalSample
from hatchery_jobs.evaluate.model import LoadedModel, ModelSource
from hatchery_jobs.evaluate.tasks import TaskResult, number, text
from hatchery_jobs.reporting import fenced, markdown_page, markdown_table

MAX_MEASURES: Final = 64
"""Measures in the status."""

MAX_SAMPLES: Final = 8
"""Continuations in the status."""

PROMPT_CHARS: Final = 80
"""Characters of a prompt in the status."""

COMPLETION_CHARS: Final = 160
"""Characters of a continuation in the status."""

LIBRARIES: Final = ("torch", "transformers", "tokenizers")
"""Libraries whose versions are recorded."""

Results = Mapping[str, TaskResult]
"""Results by name of the task, in the order of the spec."""


def results_json(spec: EvalRunSpec, source: ModelSource, loaded: LoadedModel, results: Results) -> str:
    """All numbers and everything they depend on, named as in lm-evaluation-harness where it has a name."""
    data = {
        "results": {
            task: {f"{m.metric},none": number(m.value) for m in found.measures} for task, found in results.items()
        },
        "n-samples": {task: {m.metric: m.n for m in found.measures} for task, found in results.items()},
        "definitions": {task: found.definition for task, found in results.items()},
        "configs": {task.name: task.wire() for task in spec.tasks},
        "versions": {"hatchery": __version__} | {name: version(name) for name in LIBRARIES},
        "config": {
            "model": source.name,
            "model_sha": source.digest,
            "model_num_parameters": loaded.parameters,
            "model_dtype": "float32",
            "device": loaded.model.device.type,
            "vocabulary": len(loaded.tokenizer),
        },
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def samples_jsonl(results: Results) -> str:
    """All continuations, one a line."""
    return "".join(
        json.dumps({"task": task, **asdict(sample)}, ensure_ascii=False) + "\n"
        for task, found in results.items()
        for sample in found.samples
    )


def short_result(results: Results) -> EvalResult:
    """What the status holds: the first number of every task before the second of any."""
    measures = [
        [EvalMeasure(task=task, metric=m.metric, value=text(m.value), n=m.n) for m in found.measures]
        for task, found in results.items()
    ]
    ranked = [measure for measure in chain.from_iterable(zip_longest(*measures)) if measure is not None]
    samples = [
        EvalSample(
            task=task, prompt=shortened(s.prompt, PROMPT_CHARS), completion=shortened(s.completion, COMPLETION_CHARS)
        )
        for task, found in results.items()
        for s in found.samples
        if s.completion_index == 0
    ]
    return EvalResult(results=ranked[:MAX_MEASURES], samples=samples[:MAX_SAMPLES])


def evaluation_card(name: str, source: ModelSource, loaded: LoadedModel, results: Results) -> str:
    """README.md with the metadata the Hub reads."""
    has_samples = any(found.samples for found in results.values())
    metadata = {
        "tags": ["hatchery", "evaluation"],
        "configs": [{"config_name": "samples", "data_files": "samples.jsonl"}] if has_samples else [],
    }
    rows = [
        (task, m.metric, significant(m.value), significant(m.n))
        for task, found in results.items()
        for m in found.measures
    ]
    sections = [
        f"# {name}",
        f"Evaluation of `{source.name}` ({loaded.parameters:,} parameters, `{source.digest[:12]}`). `results.json` "
        "has the numbers in full precision and everything they depend on.",
        markdown_table(("Task", "Measure", "Value", "n"), rows),
        *(_definition(task, found) for task, found in results.items()),
        *(_completions(task, found) for task, found in results.items() if found.samples),
    ]
    return markdown_page(metadata, sections)


def _definition(task: str, found: TaskResult) -> str:
    lines = [f"- {name}: {_plain(value)}" for name, value in found.definition.items()]
    return "\n".join([f"## How {task} is measured\n", *lines])


def _plain(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, str) else value


def _completions(task: str, found: TaskResult) -> str:
    blocks = [
        fenced(f"{sample.prompt}{sample.completion}", "python")
        for sample in found.samples
        if sample.completion_index == 0
    ]
    heading = f"## Continuations of {task}\n\nThe first of each prompt; all are in `samples.jsonl`."
    return "\n\n".join([heading, *blocks])
