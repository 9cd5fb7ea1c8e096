"""The stage: find the model, do the tasks in their order, write what they found."""

import json
import os
from functools import partial
from typing import Final

from hatchery_api.resources.evaluate import CompletionTask, EvalResult, EvalRunSpec, EvalTask
from hatchery_jobs.evaluate.model import Loaded, find_model, load
from hatchery_jobs.evaluate.results import card, results_json, samples_jsonl, short_result
from hatchery_jobs.evaluate.tasks import completion, perplexity
from hatchery_jobs.evaluate.tasks.base import TaskResult
from hatchery_jobs.readers import open_split
from hatchery_jobs.runtime import Context, Interrupted, Outcome, write_atomically

CODE_VERSION: Final = "1"
"""Goes into the artifact's key; raised when equal input would give other files."""

RESULT: Final = "result.json"
"""File with the EvalResult."""


def run(context: Context[EvalRunSpec]) -> Outcome:
    """Evaluates the model with all tasks and writes the numbers, the continuations and a card."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # no fork follows, so the library need not stop at one
    source = find_model(context)
    draft = context.draft(CODE_VERSION, {"model": source.digest})
    if existing := draft.existing():
        artifact, folder = existing
        result = EvalResult.model_validate_json((folder / RESULT).read_bytes())
        return Outcome(artifact, folder, result, cached=True)
    loaded = load(source, source.folder(context))
    spec = context.job.spec
    results = {task.name: _do(context, task, index, loaded) for index, task in enumerate(spec.tasks)}
    result = short_result(results)
    files = {
        "results.json": results_json(spec, source, loaded, results),
        "samples.jsonl": samples_jsonl(results),
        "README.md": card(context.job.name, source, loaded, results),
        RESULT: json.dumps(result.wire(), indent=1, sort_keys=True) + "\n",
    }
    for name, content in files.items():
        write_atomically(draft.folder / name, content.encode())
    artifact, folder = draft.commit()
    return Outcome(artifact, folder, result)


def _do(context: Context[EvalRunSpec], task: EvalTask, index: int, loaded: Loaded) -> TaskResult:
    field = f"spec.tasks[{index}]"
    watch = partial(_watch, context, task.name)
    if task.perplexity is not None:
        split = open_split(context.input(f"corpus-{task.name}"), task.perplexity.corpus_ref.split)
        return perplexity.run(task.perplexity, field, loaded, split, watch)
    return completion.run(task.completion or CompletionTask(), field, loaded, watch)


def _watch(context: Context[EvalRunSpec], task: str, done: int, total: int, unit: str) -> None:
    context.progress.update(done, total, f"{unit} of {task}")
    if context.stop.is_set():
        raise Interrupted(f"asked to end in task {task} after {done} of {total} {unit}; it starts again")
