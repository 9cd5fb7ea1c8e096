"""The commands and their options."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml
from rich.console import Console
from rich.text import Text

from hatchery_api import __version__
from hatchery_api.base import parse_duration
from hatchery_api.resources.pretrain import PretrainRunStatus
from hatchery_cli.client import ClusterClient, KubeCluster
from hatchery_cli.curve import hub_settings, read_from_hub
from hatchery_cli.errors import CommandError, Exit
from hatchery_cli.render import reasons_table, runs_table
from hatchery_cli.summary import Curves, facts, summary
from hatchery_cli.views import RunView, chosen
from hatchery_cli.watch import Watch

PIPE_COLUMNS: Final = 160
"""Width of tables when the output is not a terminal."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    help="Train language models from raw text: apply, watch and summarize runs. Also available as `kubectl hatchery`.",
)


class Format(StrEnum):
    """Output formats of `-o`."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Namespace = Annotated[str | None, typer.Option("-n", "--namespace", help="Namespace (default: the context's).")]
Context = Annotated[str | None, typer.Option("--context", help="Context in the kubeconfig.")]
Kubeconfig = Annotated[str | None, typer.Option("--kubeconfig", help="Path of the kubeconfig (default: KUBECONFIG).")]
Output = Annotated[Format, typer.Option("-o", "--output", help="Output format.")]
Names = Annotated[list[str] | None, typer.Argument(help="NAME or KIND/NAME, for example pretrainrun/stdlib.")]


def connect(context: str | None, kubeconfig: str | None) -> ClusterClient:
    """Connects to the cluster of a kubeconfig context."""
    return KubeCluster(context, kubeconfig)


def console() -> Console:
    """The terminal, or a page of `PIPE_COLUMNS` for a pipe; colours honour NO_COLOR."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=PIPE_COLUMNS)


@app.callback(invoke_without_command=True)
def main(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Train language models from raw text: apply, watch and summarize runs."""
    if show_version:
        typer.echo(f"hatchery {__version__}")
        raise typer.Exit


@app.command()
def status(
    *,
    namespace: Namespace = None,
    every: Annotated[bool, typer.Option("-A", "--all-namespaces", help="List runs of all namespaces.")] = False,
    output: Output = Format.TABLE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List all runs in one table."""
    cluster = connect(context, kubeconfig)
    where = None if every else namespace or cluster.namespace
    resources = cluster.list(where)
    if output != Format.TABLE:
        _dump({"items": resources}, output)
    elif not resources:
        typer.echo(f"no runs in {f'namespace {where}' if where else 'the cluster'}; start one: hatchery apply -f FILE")
    else:
        runs = chosen(map(RunView.of, resources), ())
        page = console()
        page.print(runs_table(runs, datetime.now(UTC)))
        if why := reasons_table(runs):
            page.print(why)


@app.command()
def watch(
    *,
    names: Names = None,
    every: Annotated[bool, typer.Option("--all", help="Watch all runs of the namespace.")] = False,
    timeout: Annotated[str | None, typer.Option(help="Stop watching after this long, for example 30m.")] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Watch runs until all have finished. Exit code: 0 all succeeded, 1 one failed, 3 timeout, 130 interrupted."""
    if bool(names) == every:
        raise CommandError("name one or more runs, or pass --all")
    seconds = _seconds(timeout)
    cluster = connect(context, kubeconfig)
    where = namespace or cluster.namespace
    try:
        code = Watch(cluster, console(), where, names or (), seconds).run()
    except KeyboardInterrupt:
        runs = " ".join(names or ["--all"])
        typer.echo(f"\ndetached; the runs keep running. Reattach: hatchery watch {runs} -n {where}")
        code = Exit.DETACHED
    raise typer.Exit(code)


@app.command("summary")
def summarize(
    *,
    names: Names = None,
    namespace: Namespace = None,
    output: Output = Format.TABLE,
    hub: Annotated[str | None, typer.Option("--hub-endpoint", help="URL of the Hub (default: HF_ENDPOINT).")] = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Summarize results: documents, tokenizer, loss, perplexity, completions, and where the artifacts are."""
    cluster = connect(context, kubeconfig)
    where = namespace or cluster.namespace
    runs = chosen(map(RunView.of, cluster.list(where)), names or ())
    if not runs:
        raise CommandError(f"no runs in namespace {where}; start one: hatchery apply -f FILE")
    curves = {run.label: found for run in runs if (found := loss_curve(run, hub)) is not None}
    show_summary(runs, curves, output)


def show_summary(runs: list[RunView], curves: Curves, output: Format = Format.TABLE) -> None:
    """Prints the summary of runs."""
    if output == Format.TABLE:
        console().print(summary(runs, curves))
    else:
        _dump(facts(runs, curves), output)


def loss_curve(run: RunView, endpoint: str | None) -> list[tuple[float, float]] | str | None:
    """The curve that a run has pushed, or why it cannot be read; None for runs without a curve."""
    if not isinstance(run.status, PretrainRunStatus) or not run.succeeded:
        return None
    if run.status.hub is None:
        return "not pushed to a Hub; see metrics.jsonl in the artifact, or hatchery_train_loss in Prometheus"
    default, token = hub_settings()
    try:
        return read_from_hub(run.status.hub, endpoint or default, token)
    except (OSError, ValueError, KeyError) as error:
        return f"cannot be read from the Hub ({error}); pass --hub-endpoint, and set HF_TOKEN for a private repository"


@app.command()
def apply(
    *,
    files: Annotated[list[Path], typer.Option("-f", "--filename", help="YAML file, or - for standard input.")],
    namespace: Namespace = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Validate on the server without changing anything.")
    ] = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Create or update runs by server-side apply; validation errors name the field."""
    resources = [(path, resource) for path in files for resource in _read(path)]
    cluster = connect(context, kubeconfig)
    where = namespace or cluster.namespace
    errors = []
    for path, resource in resources:
        try:
            done = cluster.apply(resource, where, dry_run=dry_run)
        except CommandError as error:
            errors.append(f"{path}: {error}")
            continue
        typer.echo(f"{done['kind'].lower()}/{done['metadata']['name']} {'would be ' if dry_run else ''}applied")
    if errors:
        raise CommandError("\n".join(errors), Exit.FAILED)
    if not dry_run:
        typer.echo(f"watch them: hatchery watch --all -n {where}")


def _read(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
        documents = list(yaml.safe_load_all(text))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CommandError(f"{path}: {error}") from error
    for number, document in enumerate(documents, 1):
        if document is None:
            continue
        if not isinstance(document, dict) or not {"apiVersion", "kind", "metadata"} <= document.keys():
            raise CommandError(f"{path}, document {number}: needs apiVersion, kind and metadata.name")
        if not isinstance(document["metadata"], dict) or "name" not in document["metadata"]:
            raise CommandError(f"{path}, document {number}: {document['kind']} needs metadata.name")
        yield document


def _seconds(duration: str | None) -> float | None:
    try:
        return None if duration is None else parse_duration(duration)
    except ValueError as error:
        raise CommandError(f"--timeout: {error}") from error


def _dump(value: object, form: Format) -> None:
    if form == Format.JSON:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        typer.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)


def run() -> None:
    """Runs the command line and exits with the command's exit code."""
    try:
        app()
    except CommandError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(Text(f"error: {error}", style="red"))
        sys.exit(error.code)
