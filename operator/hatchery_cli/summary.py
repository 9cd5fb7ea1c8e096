"""What runs brought: funnel, tokenizer, loss, perplexity before and after, continuations, and where all of it is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from hatchery_api.resources.corpus import CorpusBuildStatus
from hatchery_api.resources.evaluate import EvalRunStatus
from hatchery_api.resources.pretrain import PretrainRunStatus
from hatchery_api.resources.tokenizer import TokenizerBuildStatus, TokenizerMetrics
from hatchery_cli.curve import Points, plot
from hatchery_cli.render import clean, duration_text, failure_card, table
from hatchery_cli.views import NOTHING, RunView

Curves = Mapping[str, Points | str]
"""Loss curve by the label of a run, or why there is none."""

_KIB: Final = 1024


def summary(runs: Sequence[RunView], curves: Curves) -> Group:
    """Everything about some runs."""
    parts: list[RenderableType] = []
    for run in runs:
        parts += [Text(), Text(f"{run.kind.kind} {run.name}", style="bold cyan"), Text(_outcome(run))]
        if run.failed:
            parts.append(failure_card(run))
        parts += [Padding(part, (0, 0, 0, 2)) for part in _details(run, curves)]
    return Group(*parts, *_artifacts(runs), *_commands(runs))


def facts(runs: Sequence[RunView], curves: Curves) -> list[dict[str, Any]]:
    """The same for programs."""
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
    """How many times better than the untrained model."""
    status = run.status
    if not isinstance(status, PretrainRunStatus) or not status.perplexity or not status.initial_perplexity:
        return None
    return status.initial_perplexity / status.perplexity


def _outcome(run: RunView) -> str:
    status, took = run.status, ""
    if status.start_time and status.completion_time:
        seconds = datetime.fromisoformat(status.completion_time) - datetime.fromisoformat(status.start_time)
        took = f" in {duration_text(seconds.total_seconds())}"
    attempts = f", {status.attempts} Jobs, {status.failures} failures, {status.disruptions} disruptions"
    return f"{run.state}{took}{attempts if status.attempts else ''}"


def _details(run: RunView, curves: Curves) -> Iterator[RenderableType]:
    status = run.status
    if isinstance(status, CorpusBuildStatus):
        yield from _corpus(status)
    elif isinstance(status, TokenizerBuildStatus):
        yield from _tokenizer(status)
    elif isinstance(status, PretrainRunStatus):
        yield from _pretrain(run, status, curves.get(run.label))
    elif isinstance(status, EvalRunStatus):
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
            f"duplicates: {found.exact:,} identical, {found.near:,} near, in {found.clusters:,} clusters, "
            f"the largest of {found.largest:,}"
        )
    for name, split in status.splits.items():
        yield Text(f"split {name}: {split.rows:,} documents, {size_text(split.bytes)}, {split.shards} files")
    if status.quarantined:
        yield Text(f"set aside as unreadable: {status.quarantined:,}", style="yellow")


def _tokenizer(status: TokenizerBuildStatus) -> Iterator[RenderableType]:
    if status.vocab_size:
        yield Text(f"{status.vocab_size:,} tokens, trained on {status.documents or 0:,} documents")
    if status.metrics:
        measures = table("MEASURE", "VALUE", "MEANING", right=("VALUE",))
        for name, about in TokenizerMetrics.model_fields.items():
            measures.add_row(about.alias, f"{getattr(status.metrics, name):.4f}", about.description)
        yield measures
    if status.missing_keywords is not None:
        listed = ", ".join(status.missing_keywords) or "none"
        yield Text(f"keywords that are no single token: {clean(listed)}")


def _pretrain(run: RunView, status: PretrainRunStatus, curve: Points | str | None) -> Iterator[RenderableType]:
    loss = status.loss
    shown: list[tuple[str, float | None, Callable[[Any], str]]] = [
        ("parameters", status.parameters, "{:,}".format),
        ("steps", status.step, "{:,}".format),
        ("tokens", status.tokens, "{:,}".format),
        ("tokens/s", status.tokens_per_second, "{:,.0f}".format),
        ("MFU", status.mfu, "{:.1%}".format),
        ("goodput", status.goodput, "{:.1%}".format),
        ("loss before", loss.initial if loss else None, "{:.3f}".format),
        ("loss after", loss.eval if loss else None, "{:.3f}".format),
        ("bits per byte", status.bits_per_byte, "{:.3f}".format),
    ]
    yield Text("  ".join(f"{name} {form(value)}" for name, value, form in shown if value is not None))
    ratio = perplexity_ratio(run)
    if ratio is not None:
        yield Text(
            f"perplexity {status.initial_perplexity:,.1f} untrained, {status.perplexity:,.1f} trained: "
            f"{ratio:,.1f} times better",
            style="bold",
        )
    if status.resumed_from:
        yield Text(f"resumed at steps {', '.join(map(str, status.resumed_from))}")
    if status.skipped or status.rollbacks:
        text = (
            f"left out by the guard: {status.skipped or 0:,} batches; returns to a checkpoint: {status.rollbacks or 0}"
        )
        yield Text(text, style="yellow")
    if isinstance(curve, str):
        yield Text(f"loss curve: {clean(curve)}", style="dim")
    elif curve:
        yield Text(f"training loss by step\n{plot(curve)}")


def _evaluation(status: EvalRunStatus) -> Iterator[RenderableType]:
    if status.results:
        results = table("TASK", "METRIC", "VALUE", "N", right=("VALUE", "N"))
        for one in status.results:
            results.add_row(one.task, one.metric, one.value, f"{one.n:,}")
        yield results
    for sample in status.samples:
        text = Text(f"{sample.task}: ", style="dim")
        text.append(clean(sample.prompt), style="default not dim")
        text.append(clean(sample.completion), style="green not dim")
        yield text


def _artifacts(runs: Sequence[RunView]) -> Iterator[RenderableType]:
    made = [run for run in runs if run.status.artifact or run.status.hub]
    if not made:
        return
    yield Text("\nWhere everything is", style="bold cyan")
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


def size_text(count: int) -> str:
    """A size for people."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < _KIB:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _KIB
    return f"{size:.1f} TiB"
