"""Tables and failure cards for a terminal, and one-line summaries for logs."""

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from rich import box
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hatchery_api.conditions import Reason
from hatchery_api.format import duration_text, significant
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


def clean(text: str) -> str:
    """Text without control characters: the output of a model or a log must not control the terminal."""
    return "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}" for c in text)


def table(*columns: str, right: Iterable[str] = (), title: str | None = None) -> Table:
    """An empty table without lines between its rows."""
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    numbers = set(right)
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return made


def loss_text(run: RunView) -> str:
    """Loss for a cell."""
    return NOTHING if run.loss is None else significant(run.loss)


def speed_text(run: RunView) -> str:
    """Tokens per second for a cell."""
    return NOTHING if run.tokens_per_second is None else significant(run.tokens_per_second)


def age_text(since: str, now: datetime) -> str:
    """Time since a timestamp, in its two largest units."""
    if not since:
        return NOTHING
    return duration_text((now - datetime.fromisoformat(since).astimezone(UTC)).total_seconds())


def state_text(run: RunView) -> Text:
    """The state, coloured."""
    style = (
        "red" if run.failed or run.is_blocked else _STYLES.get(Reason(run.state), "yellow") if run.verdict else "dim"
    )
    return Text("Stalled", style="yellow") if run.is_stalled else Text(run.state, style=style)


def runs_table(runs: Sequence[RunView], now: datetime) -> Table:
    """A row for each run, of any kind."""
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
    """Why runs make no progress; None when all do."""
    held = [run for run in runs if run.why]
    if not held:
        return None
    several = len({run.namespace for run in runs}) > 1
    shown = table("RUN", "MESSAGE")
    for run in held:
        shown.add_row(f"{run.namespace}/{run.label}" if several else run.label, clean(run.why))
    return shown


def run_line(run: RunView) -> str:
    """A run in one line, for logs."""
    facts = [run.label, run.status.current_stage or "", run.state]
    if run.progress != NOTHING:
        facts.append(run.progress)
    if run.loss is not None:
        facts.append(f"loss {loss_text(run)}")
    if run.tokens_per_second is not None:
        facts.append(f"{speed_text(run)} tokens/s")
    if run.eta != NOTHING:
        facts.append(f"{run.eta} left")
    if run.why:
        facts.append(clean(run.why))
    elif not run.succeeded and run.message and run.progress == NOTHING:
        facts.append(clean(first_line(run.message)))
    return "  ".join(fact for fact in facts if fact)


def remedy(reason: str) -> str:
    """The explanation of a reason: its docstring, as on the reference page."""
    return {member.value: member_docs(Reason)[member.name] for member in Reason}.get(reason, "")


def failure_card(run: RunView) -> Panel:
    """What failed, where, why, and how to investigate."""
    problem = run.problem
    reason = problem.reason if problem else run.state
    stage = next((s for s in reversed(run.status.stages) if s.attempt), None)
    where = f"{run.label} in namespace {run.namespace}"
    if stage:
        where += f", stage {stage.name}, attempt {stage.attempt}" + (f", Job {stage.job}" if stage.job else "")
    body = Table.grid(padding=(0, 2))
    body.add_column(style="bold", no_wrap=True)
    body.add_column(overflow="fold")
    body.add_row("run", Text(where))
    body.add_row("error", Text(clean(problem.message if problem else run.message)))
    if hint := remedy(reason):
        body.add_row("hint", Text(hint))
    body.add_row("inspect", Text(f"kubectl -n {run.namespace} describe {run.label}"))
    if stage and stage.job:
        body.add_row("", Text(f"kubectl -n {run.namespace} logs job/{stage.job} --all-pods --tail=50"))
    title = Text(f"{run.kind.kind} {run.name}: {reason}", style="bold red")
    return Panel(body, title=title, title_align="left", border_style="red", box=box.ROUNDED)
