"""Watches runs until all have finished: a live table on a terminal, one line per change elsewhere."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from hatchery_api.format import duration_text
from hatchery_cli.client import ClusterClient
from hatchery_cli.curve import Points, plot
from hatchery_cli.errors import CommandError, Exit
from hatchery_cli.render import clean, failure_card, run_line, runs_table
from hatchery_cli.views import RunView, chosen, first_line

POLL_SECONDS: Final = 2.0
"""Polling interval; the operator updates live progress every ten seconds at most."""

PATIENCE_SECONDS: Final = 60.0
"""How long the API server may be unreachable; a restart does not end a watch of hours."""

QUIET_SECONDS: Final = 30.0
"""Longest time between two lines about a running run, without a terminal."""

Losses = Mapping[str, Points]
"""Loss by step, by the label of the run."""


@dataclass
class Watch:
    """One invocation of `hatchery watch`."""

    cluster: ClusterClient
    console: Console
    namespace: str
    names: Sequence[str] = ()
    timeout_seconds: float | None = None
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    losses: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Loss by step of each run, as observed so far."""
    answered: float = field(init=False, default=0.0)
    """When the API server last answered."""

    def run(self) -> Exit:
        """Shows the runs until all have finished; returns the exit code."""
        runs = self._poll()
        began = self.answered = self.monotonic()
        if not runs:
            raise CommandError(f"no runs in namespace {self.namespace}; start one: hatchery apply -f FILE")
        display = _Table(self) if self.console.is_terminal else _Lines(self)
        with display:
            display.show(runs)
            while not all(run.is_settled for run in runs):
                if self.timeout_seconds is not None and self.monotonic() - began > self.timeout_seconds:
                    return self._timed_out(runs)
                self.sleep(POLL_SECONDS)
                runs = self._poll_patiently(runs)
                display.show(runs)
        return self._ended(runs)

    def _poll_patiently(self, before: list[RunView]) -> list[RunView]:
        """The current runs, or the last known ones while the API server is unreachable."""
        try:
            runs = self._poll()
        except CommandError as error:
            if error.code != Exit.FAILED or self.monotonic() - self.answered > PATIENCE_SECONDS:
                raise
            return before
        self.answered = self.monotonic()
        gone = {run.label for run in before} - {run.label for run in runs}
        if gone:
            raise CommandError(f"deleted while being watched: {', '.join(sorted(gone))}", Exit.FAILED)
        return runs

    def _poll(self) -> list[RunView]:
        runs = chosen(map(RunView.of, self.cluster.list(self.namespace)), self.names)
        for run in runs:
            step = run.live("done") if run.status.current_stage == "train" else None
            if run.live("loss") and run.loss is not None and step:
                points = self.losses.setdefault(run.label, [])
                if not points or points[-1][0] != float(step):
                    points.append((float(step), run.loss))
        return runs

    def _ended(self, runs: Sequence[RunView]) -> Exit:
        for run in runs:
            if run.failed:
                self.console.print(failure_card(run))
            elif run.is_blocked and run.problem:
                self.console.print(Text(f"{run.label} is blocked: {clean(run.problem.message)}", style="yellow"))
        return Exit.OK if all(run.succeeded for run in runs) else Exit.FAILED

    def _timed_out(self, runs: Sequence[RunView]) -> Exit:
        unfinished = ", ".join(run.label for run in runs if not run.is_settled)
        waited = duration_text(self.timeout_seconds or 0)
        self.console.print(f"timed out after {waited}; still running: {unfinished}", style="yellow", markup=False)
        return Exit.TIMEOUT


def live_view(runs: Sequence[RunView], losses: Losses, now: datetime) -> Group:
    """What a terminal shows: the table, the loss curves, and a line for each run that has not succeeded."""
    parts: list[RenderableType] = [runs_table(runs, now)]
    for run in runs:
        points = losses.get(run.label, ())
        if len(points) > 1:
            parts.append(Text(f"loss of {run.label}\n{plot(points, rows=5)}"))
        if run.message and not run.succeeded:
            message = clean(run.why or first_line(run.message))
            parts.append(Text(f"{run.label}: {message}", style="dim", overflow="ellipsis", no_wrap=True))
    return Group(*parts)


class _Table:
    """A table redrawn in place."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._live = Live(console=watch.console, auto_refresh=False)

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, runs: Sequence[RunView]) -> None:
        """Redraws the table."""
        self._live.update(live_view(runs, self._watch.losses, datetime.now(UTC)), refresh=True)


class _Lines:
    """A line when a run changes stage or state, and every `QUIET_SECONDS` while it makes progress."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._printed: dict[str, tuple[float, tuple[str | None, str], str]] = {}

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, runs: Sequence[RunView]) -> None:
        """Prints a line for each run with news."""
        now = self._watch.monotonic()
        for run in runs:
            since, state, text = self._printed.get(run.label, (float("-inf"), None, ""))
            current, line = (run.status.current_stage, run.state), run_line(run)
            if current != state or (line != text and now - since >= QUIET_SECONDS):
                self._printed[run.label] = (now, current, line)
                self._watch.console.print(
                    f"{datetime.now(UTC):%H:%M:%S}  {line}", markup=False, highlight=False, soft_wrap=True
                )
