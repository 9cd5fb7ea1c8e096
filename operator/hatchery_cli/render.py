"""Tables and cards for a terminal, and the same facts as plain lines."""

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from rich import box
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hatchery_api.conditions import Reason
from hatchery_api.schema import member_docs
from hatchery_cli.views import NOTHING, RunView, first_line

_STYLES: Final = {
    Reason.COMPLETED: "green",
    Reason.RUNNING: "cyan",
    Reason.RETRYING: "yellow",
    Reason.WAITING: "dim",
    Reason.PENDING: "dim",
    Reason.QUEUED: "dim",
    Reason.SUSPENDED: "yellow",
}
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def clean(text: str) -> str:
    """Text without control characters: what a model or a log wrote must not steer the terminal."""
    return "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}" for c in text)


def table(*columns: str, right: Iterable[str] = (), title: str | None = None) -> Table:
    """An empty table without rulers between its rows."""
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    numbers = set(right)
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return made


def loss_text(run: RunView) -> str:
    """Loss for a cell."""
    return NOTHING if run.loss is None else f"{run.loss:.3f}"


def speed_text(run: RunView) -> str:
    """Tokens per second for a cell."""
    return NOTHING if run.tokens_per_second is None else f"{run.tokens_per_second:,.0f}"


def age_text(since: str, now: datetime) -> str:
    """Time since a moment: its largest unit."""
    if not since:
        return NOTHING
    return duration_text((now - datetime.fromisoformat(since).astimezone(UTC)).total_seconds())


def duration_text(seconds: float) -> str:
    """A duration for people: its two largest units."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02d}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02d}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR:02d}h"


def state_text(run: RunView) -> Text:
    """The state in its colour."""
    style = (
        "red" if run.failed or run.is_blocked else _STYLES.get(Reason(run.state), "yellow") if run.verdict else "dim"
    )
    return Text("Stalled", style="yellow") if run.is_stalled else Text(run.state, style=style)


def runs_table(runs: Sequence[RunView], now: datetime) -> Table:
    """All runs, whatever their kind."""
    shown = table(
        "KIND",
        "NAME",
        "STAGE",
        "STATE",
        "PROGRESS",
        "LOSS",
        "TOKENS/S",
        "ETA",
        "AGE",
        right=("LOSS", "TOKENS/S", "ETA"),
    )
    several = len({run.namespace for run in runs}) > 1
    for run in runs:
        shown.add_row(
            run.kind.kind,
            f"{run.namespace}/{run.name}" if several else run.name,
            run.status.current_stage or NOTHING,
            state_text(run),
            run.progress,
            loss_text(run),
            speed_text(run),
            run.eta,
            age_text(run.created, now),
        )
    return shown


def reasons_table(runs: Sequence[RunView]) -> Table | None:
    """Why runs do not run, for those that do not."""
    held = [run for run in runs if run.why]
    if not held:
        return None
    several = len({run.namespace for run in runs}) > 1
    shown = table("RUN", "WHY IT DOES NOT GO ON")
    for run in held:
        shown.add_row(f"{run.namespace}/{run.label}" if several else run.label, clean(run.why))
    return shown


def run_line(run: RunView) -> str:
    """One run in one line, for logs."""
    facts = [run.label, run.status.current_stage or "", run.state]
    if run.progress != NOTHING:
        facts.append(run.progress)
    if run.loss is not None:
        facts.append(f"loss {run.loss:.3f}")
    if run.tokens_per_second is not None:
        facts.append(f"{run.tokens_per_second:,.0f} tokens/s")
    if run.eta != NOTHING:
        facts.append(f"{run.eta} left")
    if run.why:
        facts.append(clean(run.why))
    elif not run.succeeded and run.message and run.progress == NOTHING:
        facts.append(clean(first_line(run.message)))
    return "  ".join(fact for fact in facts if fact)


def remedy(reason: str) -> str:
    """What the list of reasons says about one: its docstring is the troubleshooting page."""
    return {member.value: member_docs(Reason)[member.name] for member in Reason}.get(reason, "")


def failure_card(run: RunView) -> Panel:
    """What failed, where, why, and what to do."""
    problem = run.problem
    reason = problem.reason if problem else run.state
    stage = next((s for s in reversed(run.status.stages) if s.attempt), None)
    where = f"{run.label} in namespace {run.namespace}"
    if stage:
        where += f", stage {stage.name}, attempt {stage.attempt}" + (f", Job {stage.job}" if stage.job else "")
    body = Table.grid(padding=(0, 2))
    body.add_column(style="bold", no_wrap=True)
    body.add_column(overflow="fold")
    body.add_row("where", Text(where))
    body.add_row("what", Text(clean(problem.message if problem else run.message)))
    if hint := remedy(reason):
        body.add_row("means", Text(hint))
    body.add_row("look", Text(f"kubectl -n {run.namespace} describe {run.label}"))
    if stage and stage.job:
        body.add_row("", Text(f"kubectl -n {run.namespace} logs job/{stage.job} --all-pods --tail=50"))
    title = Text(f"{run.kind.kind} {run.name}: {reason}", style="bold red")
    return Panel(body, title=title, title_align="left", border_style="red", box=box.ROUNDED)
