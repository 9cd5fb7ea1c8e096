"""What Prometheus sees of the resources: made from their status when it is asked for, so series go with the resource.

Labels are names and closed sets of words only, never a step, a commit, a path or the text of an error: the number of
series is at most `SERIES_PER_RUN` for each resource, and `RESULTS` more for the results of an evaluation.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, get_args

from hatchery_api.conditions import ConditionType, find_condition
from hatchery_api.resources.evaluate import EvalRunStatus
from hatchery_api.resources.pretrain import PretrainRunSpec, PretrainRunStatus
from hatchery_api.status import RunStatus, StageState
from hatchery_operator.domain.objects import Key, Run, parse_time
from hatchery_operator.manifests.resources import devices
from hatchery_operator.stages.pretrain import TRAIN

PHASES: Final[tuple[str, ...]] = get_args(StageState)
"""What a resource can be in; exactly one of them is 1."""

SERIES_PER_RUN: Final = 32
"""Series of one resource at most, without the results of an evaluation."""

RESULTS: Final = 64
"""Results of an evaluation at most, as its status limits them."""

_PERCENT: Final = 100
_RUN: Final = ("kind", "namespace", "name")
_FAMILIES: Final = {
    "phase": ("hatchery_resource_phase", "1 for the phase a resource is in, 0 for the others.", (*_RUN, "phase")),
    "condition": (
        "hatchery_resource_condition",
        "Conditions as they are now.",
        (*_RUN, "type", "status", "reason"),
    ),
    "stage": ("hatchery_run_current_stage", "1 for the stage that works now.", (*_RUN, "stage")),
    "attempts": ("hatchery_run_attempts", "Jobs created so far.", _RUN),
    "failures": ("hatchery_run_failures", "Attempts that failed.", _RUN),
    "disruptions": ("hatchery_run_disruptions", "Pods lost to eviction, preemption or drain.", _RUN),
    "devices": ("hatchery_run_devices", "Accelerators that a running training stage holds.", _RUN),
    "started": ("hatchery_run_start_timestamp_seconds", "When work began.", _RUN),
    "completed": ("hatchery_run_completion_timestamp_seconds", "When the run ended.", _RUN),
    "progress": ("hatchery_run_progress_ratio", "Share of the current stage that is done.", _RUN),
    "heartbeat": ("hatchery_run_last_heartbeat_timestamp_seconds", "When a pod last reported progress.", _RUN),
    "steps": ("hatchery_run_target_steps", "Optimizer steps of the whole run.", _RUN),
    "loss": ("hatchery_run_loss", "Cross-entropy of a finished run, in nats per token.", (*_RUN, "split")),
    "perplexity": ("hatchery_run_perplexity", "Perplexity of a finished run on the validation split.", _RUN),
    "eval": ("hatchery_eval_metric", "Results of an EvalRun.", ("namespace", "name", "task", "metric")),
}
_SPLITS: Final = {"train": "train", "eval": "validation", "initial": "initial"}

Sample = tuple[str, dict[str, str], float]
"""Short name of a family, its labels beside those of the resource, and a value."""


class RunPage:
    """The text about all resources; that of one is made again only when the resource has changed.

    Making it anew for a thousand resources would hold the event loop for more than a tenth of a second.
    """

    def __init__(self, runs: Callable[[], Iterable[Run]]) -> None:
        self._runs = runs
        self._made: dict[Key, tuple[Run, Mapping[str, str]]] = {}

    def text(self) -> str:
        """All families in the format Prometheus reads."""
        made, self._made = self._made, {}
        for run in self._runs():
            before = made.get(run.key)
            self._made[run.key] = before if before and before[0] is run else (run, _lines(run))
        texts = [lines for _, lines in self._made.values()]
        return "".join(
            f"# HELP {name} {about}\n# TYPE {name} gauge\n" + "".join([lines.get(key, "") for lines in texts])
            for key, (name, about, _) in _FAMILIES.items()
        )


def _lines(run: Run) -> Mapping[str, str]:
    """The lines of one resource by family."""
    lines: dict[str, str] = {}
    for key, extra, value in _samples(run):
        name, _, names = _FAMILIES[key]
        values = run.key._asdict() | extra
        labels = ",".join(f'{label}="{_escaped(values[label])}"' for label in names)
        lines[key] = f"{lines.get(key, '')}{name}{{{labels}}} {float(value)}\n"
    return lines


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def phase_of(status: RunStatus) -> str:
    """The one word for what a resource does: how it ended, else the state of the stage at hand."""
    succeeded = find_condition(status.conditions, ConditionType.SUCCEEDED)
    if succeeded and succeeded.status != "Unknown":
        return "Succeeded" if succeeded.status == "True" else "Failed"
    stage = next((stage for stage in status.stages if stage.state != "Succeeded"), None)
    return stage.state if stage else "Waiting"


def _samples(run: Run) -> Iterator[Sample]:
    status, phase = run.status, phase_of(run.status)
    for each in PHASES:
        yield "phase", {"phase": each}, float(each == phase)
    for condition in status.conditions:
        yield "condition", {"type": condition.type, "status": condition.status, "reason": condition.reason}, 1
    yield "attempts", {}, status.attempts
    yield "failures", {}, status.failures
    yield "disruptions", {}, status.disruptions
    if status.current_stage and not status.completion_time:
        yield "stage", {"stage": status.current_stage}, 1
    heartbeat = status.progress.updated_at if status.progress else None
    for key, text in (("started", status.start_time), ("completed", status.completion_time), ("heartbeat", heartbeat)):
        if text:
            yield key, {}, parse_time(text).timestamp()
    if status.progress and status.progress.percentage is not None:
        yield "progress", {}, status.progress.percentage / _PERCENT
    if isinstance(status, PretrainRunStatus):
        yield from _pretrain(run, status, is_training=phase == "Running" and status.current_stage == TRAIN)
    elif isinstance(status, EvalRunStatus):
        yield from _results(status)


def _pretrain(run: Run, status: PretrainRunStatus, *, is_training: bool) -> Iterator[Sample]:
    if isinstance(run.spec, PretrainRunSpec):
        held = run.spec.parallelism.nodes * devices(run.spec.placement.resources)
        yield "devices", {}, held if is_training else 0
        yield "steps", {}, run.spec.schedule.steps
    for split, loss in (status.loss.model_dump() if status.loss else {}).items():
        if loss is not None:
            yield "loss", {"split": _SPLITS[split]}, loss
    if status.perplexity is not None:
        yield "perplexity", {}, status.perplexity


def _results(status: EvalRunStatus) -> Iterator[Sample]:
    for measure in status.results:
        try:
            value = float(measure.value)
        except ValueError:  # a result comes from a pod: one that is no number must not cost the whole page
            continue
        yield "eval", {"task": measure.task, "metric": measure.metric}, value
