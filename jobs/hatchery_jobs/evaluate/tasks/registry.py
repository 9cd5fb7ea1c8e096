"""The tasks by their field in `EvalTask`."""

from collections.abc import Callable
from typing import Any, Final

from hatchery_api.resources.evaluate import EvalTask
from hatchery_jobs.evaluate.tasks import completion, perplexity
from hatchery_jobs.evaluate.tasks.base import TaskContext, TaskResult

TASKS: Final[dict[str, Callable[[Any, TaskContext], TaskResult]]] = {
    "perplexity": perplexity.run,
    "completion": completion.run,
}
"""Each takes the task's settings and a context."""


def task_type(task: EvalTask) -> str:
    """The field of a task that is set."""
    return next(name for name in TASKS if getattr(task, name) is not None)


def run_task(task: EvalTask, context: TaskContext) -> TaskResult:
    """Runs one task of the spec."""
    name = task_type(task)
    return TASKS[name](getattr(task, name), context)
