"""The `evaluate` stage: resolve the model, run the tasks in order, write the results."""

import json
import os
from functools import partial
from typing import Final

from hatchery_api.resources.evaluate import EvalResult, EvalRunSpec, EvalTask
from hatchery_jobs.evaluate.model import LoadedModel, load_model, resolve_model
from hatchery_jobs.evaluate.output import evaluation_card, results_json, samples_jsonl, short_result
from hatchery_jobs.evaluate.tasks import TaskContext, TaskResult, run_task, task_type
from hatchery_jobs.readers import CorpusSplit, open_split
from hatchery_jobs.runtime import Context, Interrupted, Outcome, write_atomically

CODE_VERSION: Final = "1"
"""Part of the artifact's key; raised when equal input would give other files."""

RESULT: Final = "result.json"
"""File with the EvalResult."""


def run(context: Context[EvalRunSpec]) -> Outcome:
    """Evaluates the model with all tasks and writes the numbers, the continuations and a card."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # safe: this process never forks
    source = resolve_model(context)
    draft = context.draft(CODE_VERSION, {"model": source.digest})
    if existing := draft.existing():
        artifact, folder = existing
        result = EvalResult.model_validate_json((folder / RESULT).read_bytes())
        return Outcome(artifact, folder, result, cached=True)
    loaded = load_model(source, source.folder(context))
    spec = context.job.spec
    results = {task.name: _run_task(context, task, index, loaded) for index, task in enumerate(spec.tasks)}
    result = short_result(results)
    files = {
        "results.json": results_json(spec, source, loaded, results),
        "samples.jsonl": samples_jsonl(results),
        "README.md": evaluation_card(context.job.name, source, loaded, results),
        RESULT: json.dumps(result.wire(), indent=1, sort_keys=True) + "\n",
    }
    for name, content in files.items():
        write_atomically(draft.folder / name, content.encode())
    artifact, folder = draft.commit()
    return Outcome(artifact, folder, result)


def _run_task(context: Context[EvalRunSpec], task: EvalTask, index: int, loaded: LoadedModel) -> TaskResult:
    def _open_corpus(split: str) -> CorpusSplit:
        return open_split(context.input(f"corpus-{task.name}"), split)

    field = f"spec.tasks[{index}].{task_type(task)}"
    return run_task(task, TaskContext(field, loaded, _open_corpus, partial(_report_progress, context, task.name)))


def _report_progress(context: Context[EvalRunSpec], task: str, done: int, total: int, unit: str) -> None:
    context.progress.update(done, total, f"{unit} of {task}")
    if context.stop.is_set():
        raise Interrupted(f"SIGTERM in task {task} after {done} of {total} {unit}; the next pod starts over")
