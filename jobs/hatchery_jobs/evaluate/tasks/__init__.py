"""Evaluation tasks, one module each; `registry` maps the fields of `EvalTask` to them.

Only `evaluate` may import it.
"""

from hatchery_jobs.evaluate.tasks.base import Completion, Measure, TaskContext, TaskResult, number, text
from hatchery_jobs.evaluate.tasks.registry import run_task, task_type

__all__ = ["Completion", "Measure", "TaskContext", "TaskResult", "number", "run_task", "task_type", "text"]
