"""Results of runs: funnel, tokenizer, loss, perplexity, completions, and where the artifacts are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hatchery_api.format import counted, duration_text, shortened, significant, size_text
from hatchery_api.resources.corpus import CorpusBuildStatus
from hatchery_api.resources.evaluate import EvalRunStatus, EvalSample
from hatchery_api.resources.pretrain import PretrainRunStatus
from hatchery_api.resources.tokenizer import TokenizerBuildStatus, TokenizerMetrics
from hatchery_cli.curve import Points, plot
from hatchery_cli.render import clean, failure_card, table
from hatchery_cli.views import NOTHING, RunView

SAMPLE_CHARS: Final = 240
"""Most characters shown of a prompt or completion."""

Curves = Mapping[str, Points | str]
"""Loss curve by the label of a run, or why there is none."""


def summary(runs: Sequence[RunView], curves: Curves) -> Group:
    """The results of runs, in their order."""
    parts: list[RenderableType] = []
    for run in runs:
        parts += [Text(), Text(f"{run.kind.kind} {run.name}", style="bold cyan"), Text(_outcome(run))]
        if run.failed:
            parts.append(failure_card(run))
        parts += [Padding(part, (0, 0, 0, 2)) for part in _details(run, curves)]
    return Group(*parts, *_artifacts(runs), *_commands(runs))


def facts(runs: Sequence[RunView], curves: Curves) -> list[dict[str, Any]]:
    """The same as data, in full precision."""
    return [
        {
            "kind": run.kind.kind,
            "namespace": run.namespace,
            "name": run.name,
            "state": run.state,
            "status": run.status.wire(),
            "perplexityRatio": perplexity_ratio(run),
            "lossCurve": _listed(curves.get(run.label)),
        }
        for run in runs
    ]


def _listed(curve: Points | str | None) -> list[list[float]] | None:
    return None if curve is None or isinstance(curve, str) else [list(point) for point in curve]


def perplexity_ratio(run: RunView) -> float | None:
    """Perplexity before training over perplexity after it."""
    status = run.status
    if not isinstance(status, PretrainRunStatus) or not status.perplexity or not status.initial_perplexity:
        return None
    return status.initial_perplexity / status.perplexity


def _outcome(run: RunView) -> str:
    status, parts = run.status, [run.state]
    if status.start_time and status.completion_time:
        took = datetime.fromisoformat(status.completion_time) - datetime.fromisoformat(status.start_time)
        parts = [f"{run.state} in {duration_text(took.total_seconds())}"]
    if status.attempts:
        counts = ((status.attempts, "Job"), (status.failures, "failure"), (status.disruptions, "disruption"))
        parts += [counted(count, thing) for count, thing in counts]
    return ", ".join(parts)


def _details(run: RunView, curves: Curves) -> Iterator[RenderableType]:
    match run.status:
        case CorpusBuildStatus() as status:
            yield from _corpus(status)
        case TokenizerBuildStatus() as status:
            yield from _tokenizer(status)
        case PretrainRunStatus() as status:
            yield from _pretrain(status, perplexity_ratio(run), curves.get(run.label))
        case EvalRunStatus() as status:
            yield from _evaluation(status)


def _corpus(status: CorpusBuildStatus) -> Iterator[RenderableType]:
    funnel = table("STEP", "DOCUMENTS", "BYTES", "DROPPED", "LEFT", right=("DOCUMENTS", "BYTES", "DROPPED", "LEFT"))
    first = status.funnel[0].rows if status.funnel else 0
    for step in status.funnel:
        left = f"{step.rows / first:.1%}" if first else NOTHING
        funnel.add_row(step.step, f"{step.rows:,}", size_text(step.bytes), f"{step.dropped:,}", left)
    if status.funnel:
        yield funnel
    if found := status.duplicates:
        yield Text(
            f"duplicates: {found.exact:,} exact, {found.near:,} near in {counted(found.clusters, 'cluster')}, "
            f"largest cluster {counted(found.largest, 'document')}"
        )
    for name, split in status.splits.items():
        documents, files = counted(split.rows, "document"), counted(split.shards, "file")
        yield Text(f"split {name}: {documents}, {size_text(split.bytes)}, {files}")
    if status.quarantined:
        rows = counted(status.quarantined, "unreadable file or row", "unreadable files or rows")
        yield Text(f"quarantined: {rows}", style="yellow")


def _tokenizer(status: TokenizerBuildStatus) -> Iterator[RenderableType]:
    if status.vocab_size:
        documents = counted(status.documents or 0, "document")
        yield Text(f"vocabulary of {status.vocab_size:,} tokens, trained on {documents}")
    if status.metrics:
        measures = table("MEASURE", "VALUE", "MEANING", right=("VALUE",))
        for name, about in TokenizerMetrics.model_fields.items():
            measures.add_row(about.alias, significant(getattr(status.metrics, name)), about.description)
        yield measures
    if status.missing_keywords is not None:
        listed = ", ".join(status.missing_keywords) or "none"
        yield Text(f"keywords split into several tokens: {clean(listed)}")


def _pretrain(status: PretrainRunStatus, ratio: float | None, curve: Points | str | None) -> Iterator[RenderableType]:
    loss = status.loss
    shown: list[tuple[str, float | None, Callable[[Any], str]]] = [
        ("parameters", status.parameters, significant),
        ("steps", status.step, significant),
        ("tokens", status.tokens, significant),
        ("tokens/s", status.tokens_per_second, significant),
        ("MFU", status.mfu, "{:.1%}".format),
        ("goodput", status.goodput, "{:.1%}".format),
        ("initial loss", loss.initial if loss else None, significant),
        ("validation loss", loss.eval if loss else None, significant),
        ("bits per byte", status.bits_per_byte, significant),
    ]
    yield Text("  ".join(f"{name} {form(value)}" for name, value, form in shown if value is not None))
    if ratio is not None and status.initial_perplexity and status.perplexity:
        before, after = significant(status.initial_perplexity), significant(status.perplexity)
        yield Text(
            f"perplexity {before} before training, {after} after: {significant(ratio)} times lower", style="bold"
        )
    if status.resumed_from:
        steps = "step" if len(status.resumed_from) == 1 else "steps"
        yield Text(f"resumed at {steps} {', '.join(f'{step:,}' for step in status.resumed_from)}")
    if status.skipped or status.rollbacks:
        skipped = counted(status.skipped or 0, "batch", "batches")
        yield Text(f"guard: {skipped} skipped, {counted(status.rollbacks or 0, 'rollback')}", style="yellow")
    if isinstance(curve, str):
        yield Text(f"loss curve: {clean(curve)}", style="dim")
    elif curve:
        yield Text(f"training loss by step\n{plot(curve)}")


def _evaluation(status: EvalRunStatus) -> Iterator[RenderableType]:
    if status.results:
        results = table("TASK", "METRIC", "VALUE", "N", right=("VALUE", "N"))
        tasks = list(dict.fromkeys(measure.task for measure in status.results))  # the status ranks, people group
        for task in tasks:
            for row, measure in enumerate(m for m in status.results if m.task == task):
                results.add_row("" if row else task, measure.metric, _rounded(measure.value), f"{measure.n:,}")
        yield results
    for task, samples in groupby(status.samples, key=lambda sample: sample.task):
        yield Text(f"samples of {task}", style="bold")
        yield _samples(samples)


def _rounded(value: str) -> str:
    try:
        return significant(float(value))
    except ValueError:
        return clean(value)


def _samples(samples: Iterator[EvalSample]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for sample in samples:
        grid.add_row("prompt", Text(_visible(sample.prompt)))
        grid.add_row("completion", Text(_visible(sample.completion), style="green"))
    return grid


def _visible(text: str) -> str:
    """A text cut between words, with a mark at the end of each line."""
    return clean(shortened(text, SAMPLE_CHARS)).replace("\n", "⏎\n").removesuffix("\n")


def _artifacts(runs: Sequence[RunView]) -> Iterator[RenderableType]:
    made = [run for run in runs if run.status.artifact or run.status.hub]
    if not made:
        return
    yield Text("\nArtifacts", style="bold cyan")
    for run in made:
        yield Text(run.label, style="bold")
        if artifact := run.status.artifact:
            yield Text(f"  {artifact.uri}  {size_text(artifact.bytes)}\n  digest {artifact.digest}")
        if hub := run.status.hub:
            yield Text(f"  {hub.url}\n  {hub.repo} at {hub.revision}")


def _commands(runs: Sequence[RunView]) -> Iterator[RenderableType]:
    if not runs:
        return
    namespace, last = runs[-1].namespace, runs[-1]
    yield Text("\nUseful commands", style="bold cyan")
    yield Text(
        f"  hatchery status -n {namespace}\n"
        f"  hatchery watch {last.label} -n {namespace}\n"
        f"  kubectl -n {namespace} describe {last.label}\n"
        f"  kubectl -n {namespace} logs -l hatchery.dev/name={last.name} --tail=50\n"
        f"  kubectl -n {namespace} get hatchery -o wide"
    )
