"""One view of a run for all kinds, made from the API's objects; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hatchery_api.conditions import Condition, ConditionType, Reason, find_condition
from hatchery_api.kinds import KINDS, Kind
from hatchery_api.status import LOSSES, RunStatus
from hatchery_cli.errors import CommandError

NOTHING: Final = "-"
"""Shown for a value that is absent."""

_ORDER: Final = {k.kind: n for n, k in enumerate(KINDS)}
_ON_HOLD: Final = frozenset({Reason.WAITING, Reason.QUEUED, Reason.SUSPENDED})
_ALIASES: Final = {a.lower(): k for k in KINDS for a in (k.kind, k.plural, k.short)}


@dataclass(frozen=True)
class RunView:
    """A run as its status describes it."""

    kind: Kind
    namespace: str
    name: str
    created: str
    status: RunStatus
    spec: Mapping[str, Any]

    @classmethod
    def of(cls, resource: Mapping[str, Any]) -> "RunView":
        """The view of an API object; before the first reconcile its status is empty."""
        kind = next(k for k in KINDS if k.kind == resource["kind"])
        metadata = resource["metadata"]
        return cls(
            kind=kind,
            namespace=metadata.get("namespace", ""),
            name=metadata["name"],
            created=metadata.get("creationTimestamp", ""),
            status=kind.status.model_validate(resource.get("status") or {}),
            spec=resource.get("spec", {}),
        )

    @property
    def label(self) -> str:
        """`kind/name`, as kubectl accepts it."""
        return f"{self.kind.singular}/{self.name}"

    @property
    def verdict(self) -> Condition | None:
        """The Succeeded condition."""
        return find_condition(self.status.conditions, ConditionType.SUCCEEDED)

    @property
    def state(self) -> str:
        """The reason of the Succeeded condition: what the run does now."""
        return self.verdict.reason if self.verdict else NOTHING

    @property
    def message(self) -> str:
        """The message of the Succeeded condition."""
        return self.verdict.message if self.verdict else "not reconciled yet; is the operator running?"

    @property
    def succeeded(self) -> bool:
        """Whether the artifact is ready."""
        return self.verdict is not None and self.verdict.status == "True"

    @property
    def failed(self) -> bool:
        """Whether the run failed for good."""
        return self.verdict is not None and self.verdict.status == "False"

    @property
    def is_blocked(self) -> bool:
        """Whether it waits for a run that has failed; only the user can resolve that."""
        problem = self.problem
        return problem is not None and problem.reason == Reason.REFERENCE_FAILED

    @property
    def is_settled(self) -> bool:
        """Whether it has succeeded, failed or is blocked, so that watching it can end."""
        return self.succeeded or self.failed or self.is_blocked

    @property
    def problem(self) -> Condition | None:
        """What is wrong now: the failure, or a condition that may recover."""
        if self.failed:
            return self.verdict
        return self._true(ConditionType.DEGRADED) or self._true(ConditionType.STALLED)

    def _true(self, kind: ConditionType) -> Condition | None:
        found = find_condition(self.status.conditions, kind)
        return found if found and found.status == "True" else None

    @property
    def is_stalled(self) -> bool:
        """Whether it runs without reporting progress."""
        return self._true(ConditionType.STALLED) is not None

    @property
    def why(self) -> str:
        """One line about why it makes no progress; empty for a run that does."""
        if self.problem:
            return first_line(self.problem.message)
        return first_line(self.message) if self.state in _ON_HOLD else ""

    @property
    def progress(self) -> str:
        """Progress of the current stage."""
        progress = self.status.progress
        return (progress.text if progress else "") or NOTHING

    @property
    def loss(self) -> float | None:
        """Training loss: live, else final."""
        live = next((value for name in LOSSES if (value := self.live(name))), None)
        final = getattr(self.status, "loss", None)
        return _number(live) if live else getattr(final, "train", None)

    @property
    def tokens_per_second(self) -> float | None:
        """Training throughput: final, else live."""
        final: float | None = getattr(self.status, "tokens_per_second", None)
        return final if final is not None else _number(self.live("tokens_per_second"))

    @property
    def eta(self) -> str:
        """Estimated time left in the current stage."""
        progress = self.status.progress
        return (progress.eta if progress else None) or NOTHING

    def live(self, name: str) -> str | None:
        """A live metric as the pod reported it."""
        metrics = self.status.progress.metrics if self.status.progress else []
        return next((m.value for m in metrics if m.name == name), None)


def first_line(message: str) -> str:
    """The sentence of a message; lines of a log may follow it."""
    return message.partition("\n")[0]


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def in_order(runs: Iterable[RunView]) -> list[RunView]:
    """Runs by namespace, then in the order of the pipeline."""
    return sorted(runs, key=lambda run: (run.namespace, _ORDER[run.kind.kind], run.created, run.name))


def chosen(runs: Iterable[RunView], names: Iterable[str]) -> list[RunView]:
    """The runs that match any of some names, `name` or `kind/name`; all runs without names.

    Raises:
        CommandError: a name matches nothing.
    """
    known, wanted = in_order(runs), list(names)
    if not wanted:
        return known
    picked = {id(run): run for name in wanted for run in _matching(known, name)}
    return [run for run in known if id(run) in picked]


def _matching(known: list[RunView], wanted: str) -> list[RunView]:
    prefix, _, name = wanted.rpartition("/")
    kind = _ALIASES.get(prefix.lower())
    if prefix and kind is None:
        kinds = ", ".join(k.singular for k in KINDS)
        raise CommandError(f"{wanted}: unknown kind {prefix}; use one of {kinds}, or the name alone")
    found = [run for run in known if run.name == name and kind in (None, run.kind)]
    if not found:
        existing = ", ".join(run.label for run in known) or "none"
        raise CommandError(f"{wanted}: no such run in this namespace; existing runs: {existing}")
    return found
