"""The report of a run as one HTML page: no scripts, no external resources, light and dark by the reader's preference.

It is written twice. `report.html` is part of the artifact and equal for equal runs; `run/report.html` adds what depends
on time and place: speed, restarts, interventions.
"""

from collections.abc import Sequence
from html import escape
from itertools import groupby
from statistics import fmean
from typing import Final

import yaml

from hatchery_api.contract import stage_spec
from hatchery_api.format import significant
from hatchery_jobs.pretrain.model import MODEL_FAMILIES
from hatchery_jobs.pretrain.objectives import objective_info
from hatchery_jobs.pretrain.record import Event, Sample, restarts, restarts_by_cause
from hatchery_jobs.pretrain.report.data import ReportData, evenly_spaced
from hatchery_jobs.reporting import CHART_STYLE, Chart, Line, Mark, html_page, html_table

MAX_SAMPLES: Final = 8
"""Updates whose samples are shown for each prompt."""

REPORT_STYLE: Final = """
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(185px,1fr));gap:12px;margin:24px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.tile b{display:block;font-size:20px;font-weight:600}.tile span{font-size:12px;color:var(--quiet)}
.tile i{display:block;font-style:normal;font-size:12px;color:var(--quiet);}
figure{margin:0 0 14px;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 8px 4px}
figure svg{display:block;width:100%;height:auto}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(430px,1fr));gap:14px}
.text{text-align:left}
td.text{white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,monospace}
td.text b{color:var(--accent);font-weight:600}
.bar{display:flex;height:14px;border-radius:7px;overflow:hidden;margin:10px 0 6px}.bar div{height:100%}
.key{display:flex;flex-wrap:wrap;gap:4px 20px;font-size:13px;color:var(--quiet)}
.key span::before{content:"";display:inline-block;width:9px;height:9px;border-radius:2px;margin-right:6px;
background:var(--colour)}
details{border:1px solid var(--line);border-radius:8px;padding:10px 14px;background:var(--card);margin-bottom:12px}
summary{cursor:pointer;font-weight:600}
pre{margin:10px 0 0;overflow-x:auto;font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,monospace}
"""
"""What the report adds to the style of every page."""

PHASE_COLOURS: Final = {"data": "#d4a72c", "compute": "#2f81f7", "optimizer": "#2da44e", "other": "#8b949e"}
"""Colours of the phases of an update, readable on light and dark."""


def report_html(report: ReportData) -> str:
    """The page."""
    spec = report.spec
    family, task = MODEL_FAMILIES[spec.model.architecture].title, objective_info(spec).task(spec)
    subtitle = f"{family}, {spec.model.size}, trained {task} · {spec.precision}"
    measurements = html_table(("Update", "Train", "Validation", "Bits per byte"), report.measurements())
    sections = (
        ("", _tiles(report)),
        ("Learning", _learning(report)),
        ("Time", _time(report)),
        ("Events", _events(report)),
        ("Measurements", measurements),
        ("Data", _data(report)),
        ("Samples", _samples(report)),
        ("Configuration", _configuration(report)),
    )
    return html_page(report.job.name, subtitle, sections, REPORT_STYLE + CHART_STYLE)


def loss_chart(report: ReportData) -> Chart:
    """Losses in training and on the validation split."""
    train, validation = report.points("loss"), report.points("eval_loss")
    lines = [Line("train", train, "a"), Line("validation", validation, "b", dots=True)]
    return Chart("Loss, nats per token", lines, _marks(report), report.spec.schedule.steps, is_log=True)


def _tiles(report: ReportData) -> str:
    result, facts = report.result, report.numbers()
    timed = {
        "Tokens per second": None if result.tokens_per_second is None else significant(result.tokens_per_second),
        "Model FLOPs utilization": None if result.mfu is None else f"{result.mfu:.1%}",
        "Goodput": None if result.goodput is None else f"{result.goodput:.1%}",
        "Restarts": str(len(restarts(report.lines))) if report.lines else None,
    }
    facts |= {name: value for name, value in timed.items() if value is not None}
    return f'<div class="tiles">{"".join(_tile(name, value) for name, value in facts.items())}</div>'


def _tile(name: str, value: str) -> str:
    """A number, with the words after it in smaller letters."""
    first, _, rest = value.partition(" ")
    below = f"<i>{escape(rest.strip('()'))}</i>" if rest else ""
    return f'<div class="tile"><span>{escape(name)}</span><b>{escape(first)}</b>{below}</div>'


def _figure(chart: Chart) -> str:
    return f"<figure>{chart.svg()}</figure>"


def _learning(report: ReportData) -> str:
    steps, marks = report.spec.schedule.steps, _marks(report)
    rate = Chart("Learning rate", [Line("learning rate", report.points("learning_rate"), "c")], marks, steps, width=540)
    norm_line = Line("norm", report.points("gradient_norm"), "a")
    norm = Chart("Gradient norm before clipping", [norm_line], marks, steps, width=540)
    return f'{_figure(loss_chart(report))}<div class="pair">{_figure(rate)}{_figure(norm)}</div>'


def _marks(report: ReportData) -> list[Mark]:
    marks = [Mark(step, "restart", f"restart at {step:,}: {cause}") for step, cause in restarts(report.lines)]
    for line in report.lines:
        if line["event"] == Event.INTERVENED:
            text = f"{line['action']} at {line['step']:,}: {line['reason']}"
            marks.append(Mark(line["step"], str(line["action"]), text))
    return marks


def _time(report: ReportData) -> str:
    updates = [line for line in report.lines if line["event"] == Event.UPDATE and line["total"] > 0]
    if not updates:
        return ""
    speed = Line("tokens/s", [(line["step"], line["tokens"] / line["total"]) for line in updates], "a")
    steps = report.spec.schedule.steps
    chart = Chart("Tokens per second", [speed], _marks(report), steps, from_zero=True)
    total = sum(line["total"] for line in updates)
    phases = {name: sum(line[name] for line in updates) / total for name in ("data", "compute", "optimizer")}
    phases["other"] = max(0.0, 1 - sum(phases.values()))
    bar = "".join(f'<div style="width:{p:.2%};background:{PHASE_COLOURS[n]}"></div>' for n, p in phases.items())
    key = "".join(f'<span style="--colour:{PHASE_COLOURS[n]}">{n} {p:.1%}</span>' for n, p in phases.items())
    caption = "<p>Time of updates by phase</p>"
    return f'{_figure(chart)}{caption}<div class="bar">{bar}</div><div class="key">{key}</div>'


def _events(report: ReportData) -> str:
    counts = [("Restart: " + cause, str(count)) for cause, count in restarts_by_cause(report.lines).items()]
    interventions = [line for line in report.lines if line["event"] == Event.INTERVENED]
    for (action, reason), group in groupby(sorted((str(i["action"]), str(i["reason"])) for i in interventions)):
        counts.append((f"{action.capitalize()}: {reason}", str(len(list(group)))))
    checkpoints = [line["seconds"] for line in report.lines if line["event"] == Event.CHECKPOINT]
    failed = sum(line["event"] == Event.CHECKPOINT_FAILED for line in report.lines)
    if checkpoints:
        counts.append((f"Checkpoints, {fmean(checkpoints):.1f} s each", str(len(checkpoints))))
    if failed:
        counts.append(("Failed checkpoints", str(failed)))
    return html_table(("Event", "Times"), counts) if counts else ""


def _data(report: ReportData) -> str:
    corpora_table = html_table(("Corpus", "Share of sequences", "Documents", "Digest"), report.corpora())
    if report.index is None:
        return corpora_table
    splits = [
        (name.capitalize(), f"{split.documents:,}", f"{split.text_bytes:,}", f"{split.tokens:,}")
        for name, split in sorted(report.index.splits.items())
    ]
    return f"{corpora_table}<br>{html_table(('Split', 'Documents', 'Bytes of text', 'Tokens'), splits)}"


def _samples(report: ReportData) -> str:
    between = " → " if objective_info(report.spec).writes_own_text else ""
    by_prompt: dict[str, list[Sample]] = {}
    for sample in report.samples:
        by_prompt.setdefault(sample.prompt, []).append(sample)
    return "".join(_samples_of(prompt, between, samples) for prompt, samples in by_prompt.items())


def _samples_of(prompt: str, between: str, samples: Sequence[Sample]) -> str:
    rows = "".join(
        f'<tr><td>{s.step:,}</td><td class="text"><b>{escape(s.prompt)}</b>{between}{escape(s.text)}</td></tr>'
        for s in evenly_spaced(samples, MAX_SAMPLES)
    )
    head = '<thead><tr><th>Update</th><th class="text">Text</th></tr></thead>'
    name = escape(prompt.strip().splitlines()[0] if prompt.strip() else "(empty)")
    return f"<details open><summary>{name}</summary><table>{head}<tbody>{rows}</tbody></table></details>"


def _configuration(report: ReportData) -> str:
    """The part of the spec that affects the result, which excludes for example the number of workers."""
    text = yaml.safe_dump(stage_spec(report.spec), sort_keys=False, allow_unicode=True)
    return f"<details><summary>spec</summary><pre>{escape(text)}</pre></details>"
