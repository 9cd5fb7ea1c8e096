"""Pipelines of all four kinds, each with a script for its pods and the expected outcome."""

from dataclasses import dataclass, field

from tests.support.kube.kubelet import End, Kubelet
from tests.support.operator.process import Object, Team

from hatchery_api.conditions import Reason, find_condition
from hatchery_api.contract import ExitCode, Report
from hatchery_api.kinds import BY_KIND

PIPELINE = (("CorpusBuild", "corpus"), ("TokenizerBuild", "tokenizer"), ("PretrainRun", "model"), ("EvalRun", "eval"))
"""Kinds and names of a pipeline; the names are those that the specs in `builders` refer to."""

DISK: End = (Report(reason=Reason.STORAGE_ERROR, message="the disk is full"), int(ExitCode.RETRY))
"""A failure that another attempt may fix."""

EMPTY: End = (Report(reason=Reason.EMPTY_CORPUS, message="no document is left"), int(ExitCode.DATA_ERROR))
"""A failure that no other attempt can fix."""

State = tuple[str, str, int]
"""Status and reason of the Succeeded condition, and the number of attempts."""


@dataclass(frozen=True)
class Script:
    """A scripted course of a pipeline."""

    ends: dict[str, End] = field(default_factory=dict)
    """How pods end, by the name of their Job; all others succeed."""
    expected: dict[str, State] = field(default_factory=dict)
    """States that differ from those of a pipeline without failures, by name."""


DONE: dict[str, State] = {
    "corpus": ("True", "Completed", 1),
    "tokenizer": ("True", "Completed", 1),
    "model": ("True", "Completed", 2),
    "eval": ("True", "Completed", 1),
}
"""States of a pipeline without failures."""

WAITING: State = ("Unknown", "Waiting", 0)

SCRIPTS = (
    Script(),
    Script(
        {"corpus-build-a1": DISK, "model-train-a1": DISK},
        {"corpus": ("True", "Completed", 2), "model": ("True", "Completed", 3)},
    ),
    Script(
        {"model-encode-a1": DISK, "model-encode-a2": DISK},
        {"model": ("False", "StorageError", 2), "eval": WAITING},
    ),
    Script(
        {"tokenizer-vocabulary-a1": EMPTY},
        {"tokenizer": ("False", "EmptyCorpus", 1), "model": WAITING, "eval": WAITING},
    ),
)
"""Success; a retry; exhausted attempts; a permanent failure."""


class Pipeline:
    """A pipeline in a namespace of its own."""

    def __init__(self, team: Team, script: Script) -> None:
        self.team = team
        self.expected = {**DONE, **script.expected}
        self._kubelet = Kubelet(team, lambda job: script.ends.get(job, (None, 0)))
        for kind, name in reversed(PIPELINE):
            team.apply(kind, name, retry={"maxAttempts": 2, "backoff": "1s"})

    def step(self) -> bool:
        """Advances its pods by one step; returns whether it has finished."""
        return not self._kubelet.step() and self.states() == self.expected

    def states(self) -> dict[str, State]:
        """The state of each of its resources."""
        return {name: state(kind, self.team.run(kind, name)) for kind, name in PIPELINE}

    def jobs(self) -> dict[str, int]:
        """How often each Job must have been created by the end."""
        attempts: dict[str, int] = {}
        for kind, name in PIPELINE:
            for stage in self.team.run(kind, name)["status"]["stages"]:
                attempts |= {f"{name}-{stage['name']}-a{number}": 1 for number in range(1, stage["attempt"] + 1)}
        return attempts


def state(kind: str, run: Object) -> State:
    """The state of a resource."""
    status = BY_KIND[kind].status.model_validate(run.get("status", {}))
    said = find_condition(status.conditions, "Succeeded")
    return (said.status, said.reason, status.attempts) if said else ("", "", 0)
