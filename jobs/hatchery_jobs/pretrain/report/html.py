"""The report of a run as one page of HTML: no scripts, nothing from elsewhere, light and dark by the reader's choice.

It is made twice. `report.html` is part of the artifact and the same for equal runs; `run/report.html` also has what
depends on time and place: speed, restarts, interventions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from statistics import fmean
from typing import Final

import yaml

from hatchery_api.contract import JobInput, stage_spec
from hatchery_api.resources.pretrain import PretrainResult, PretrainRunSpec
from hatchery_jobs.pretrain.data.token_store import TokenIndex
from hatchery_jobs.pretrain.record import event_log as timeline
from hatchery_jobs.pretrain.report.charts import STYLE, Chart, Line, Mark, label
from hatchery_jobs.pretrain.report.data import FAMILIES, CurveLines, corpora, measurements, numbers, task
from hatchery_jobs.pretrain.training.generate import Sample

REPORT: Final = "report.html"
"""Name of the report in the model's folder, and of the one with times in the run's record."""

CURVE_PICTURE: Final = "loss.svg"
"""Name of the picture of the loss curve that the card shows."""

SAMPLE_STEPS: Final = 8
"""Updates of which texts are shown for each prompt, evenly chosen."""

PAGE_STYLE: Final = """
:root{color-scheme:light dark;--page:#fff;--card:#f6f8fa;--line:#d9dee3;--text:#1f2328;--quiet:#59636e;--accent:#0969da}
@media (prefers-color-scheme:dark){
:root{--page:#0d1117;--card:#161b22;--line:#30363d;--text:#e6edf3;--quiet:#9198a1;--accent:#58a6ff}}
body{margin:0;background:var(--page);color:var(--text);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:26px;margin:0}h2{font-size:18px;margin:40px 0 12px;padding-bottom:6px;border-bottom:1px solid var(--line)}
p{margin:6px 0;color:var(--quiet)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(185px,1fr));gap:12px;margin:24px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.tile b{display:block;font-size:20px;font-weight:600}.tile span{font-size:12px;color:var(--quiet)}
.tile i{display:block;font-style:normal;font-size:12px;color:var(--quiet);}
figure{margin:0 0 14px;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 8px 4px}
figure svg{display:block;width:100%;height:auto}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(430px,1fr));gap:14px}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:6px 12px;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--quiet);font-weight:600}th:first-child,td:first-child,.text{text-align:left}
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

PHASE_COLOURS: Final = {"data": "#d4a72c", "compute": "#2f81f7", "optimizer": "#2da44e", "other": "#8b949e"}
"""Colours of the parts of an update, readable on light and dark."""


@dataclass(frozen=True)
class ReportData:
    """What card and report are made of."""

    job: JobInput[PretrainRunSpec]
    """Whose run it is."""
    index: TokenIndex | None
    """What was learnt from; None: text that was not encoded before."""
    result: PretrainResult
    """The numbers; without those of time and place where what is made must be equal for equal runs."""
    curve: CurveLines
    """Losses by update."""
    samples: Sequence[Sample] = ()
    """Texts the model wrote."""
    lines: Sequence[timeline.Line] = ()
    """What happened when; empty where what is made must be equal for equal runs."""

    @property
    def corpora(self) -> list[tuple[str, str, str, str]]:
        """Name, share, documents and digest of each corpus."""
        return corpora(self.job.spec, self.index)

    def points(self, name: str) -> list[tuple[float, float]]:
        """One number of the curve by update."""
        return [(line["step"], line[name]) for line in self.curve if name in line]


def report_html(story: ReportData) -> str:
    """The page."""
    spec = story.job.spec
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(story.job.name)}</title><style>{PAGE_STYLE}{STYLE}</style></head><body><main>"
    )
    about = f"{FAMILIES[spec.model.architecture]}, {spec.model.size}, trained {task(spec)} · {spec.precision}"
    title = f"<h1>{escape(story.job.name)}</h1><p>{escape(about)}</p>"
    sections = (
        ("", _tiles(story)),
        ("Learning", _learning(story)),
        ("Time", _time(story)),
        ("What happened", _events(story)),
        ("Measurements", _table(("Update", "Train", "Validation", "Bits per byte"), measurements(story.curve))),
        ("Data", _data(story)),
        ("Texts", _texts(spec, story.samples)),
        ("Configuration", _configuration(spec)),
    )
    body = "".join((f"<h2>{name}</h2>" if name else "") + content for name, content in sections if content)
    return f"{head}{title}{body}</main></body></html>\n"


def loss_chart(story: ReportData) -> Chart:
    """Losses in training and on the validation split."""
    train, validation = story.points("loss"), story.points("eval_loss")
    lines = [Line("train", train, "a"), Line("validation", validation, "b", dots=True)]
    return Chart("Loss, nats per token", lines, _marks(story), story.job.spec.schedule.steps, is_log=True)


def _tiles(story: ReportData) -> str:
    result, facts = story.result, numbers(story.job.spec, story.index, story.result)
    timed = {
        "Tokens per second": None if result.tokens_per_second is None else label(result.tokens_per_second),
        "Model FLOPs utilization": None if result.mfu is None else f"{result.mfu:.1%}",
        "Goodput": None if result.goodput is None else f"{result.goodput:.1%}",
        "Restarts": str(len(timeline.restarts(story.lines))) if story.lines else None,
    }
    facts |= {name: value for name, value in timed.items() if value is not None}
    return f'<div class="tiles">{"".join(_tile(name, value) for name, value in facts.items())}</div>'


def _tile(name: str, value: str) -> str:
    """A number, with what follows it in smaller letters."""
    first, _, rest = value.partition(" ")
    below = f"<i>{escape(rest.strip('()'))}</i>" if rest else ""
    return f'<div class="tile"><span>{escape(name)}</span><b>{escape(first)}</b>{below}</div>'


def _figure(chart: Chart) -> str:
    return f"<figure>{chart.svg()}</figure>"


def _learning(story: ReportData) -> str:
    steps, marks = story.job.spec.schedule.steps, _marks(story)
    rate = Chart("Learning rate", [Line("learning rate", story.points("learning_rate"), "c")], marks, steps, width=540)
    norm = Chart("Gradient norm before clipping", [Line("norm", story.points("gradient_norm"), "a")], marks, steps, 540)
    return f'{_figure(loss_chart(story))}<div class="pair">{_figure(rate)}{_figure(norm)}</div>'


def _marks(story: ReportData) -> list[Mark]:
    marks = [Mark(step, "restart", f"restart at {step:,}: {cause}") for step, cause in timeline.restarts(story.lines)]
    for line in story.lines:
        if line["event"] == timeline.INTERVENED:
            text = f"{line['action']} at {line['step']:,}: {line['reason']}"
            marks.append(Mark(line["step"], str(line["action"]), text))
    return marks


def _time(story: ReportData) -> str:
    updates = [line for line in story.lines if line["event"] == timeline.UPDATE and line["total"] > 0]
    if not updates:
        return ""
    speed = [(line["step"], line["tokens"] / line["total"]) for line in updates]
    chart = Chart(
        "Tokens per second",
        [Line("tokens/s", speed, "a")],
        _marks(story),
        story.job.spec.schedule.steps,
        from_zero=True,
    )
    total = sum(line["total"] for line in updates)
    parts = {name: sum(line[name] for line in updates) / total for name in ("data", "compute", "optimizer")}
    parts["other"] = max(0.0, 1 - sum(parts.values()))
    bar = "".join(f'<div style="width:{p:.2%};background:{PHASE_COLOURS[n]}"></div>' for n, p in parts.items())
    key = "".join(f'<span style="--colour:{PHASE_COLOURS[n]}">{n} {p:.1%}</span>' for n, p in parts.items())
    caption = "<p>What the time of updates is spent on</p>"
    return f'{_figure(chart)}{caption}<div class="bar">{bar}</div><div class="key">{key}</div>'


def _events(story: ReportData) -> str:
    counts = [("Restart: " + cause, str(count)) for cause, count in timeline.restarts_by_cause(story.lines).items()]
    interventions = [line for line in story.lines if line["event"] == timeline.INTERVENED]
    for (action, reason), group in groupby(sorted((str(i["action"]), str(i["reason"])) for i in interventions)):
        counts.append((f"{action.capitalize()}: {reason}", str(len(list(group)))))
    checkpoints = [line["seconds"] for line in story.lines if line["event"] == timeline.CHECKPOINT]
    failed = sum(line["event"] == timeline.CHECKPOINT_FAILED for line in story.lines)
    if checkpoints:
        counts.append((f"Checkpoints, {fmean(checkpoints):.1f} s each", str(len(checkpoints))))
    if failed:
        counts.append(("Checkpoints that could not be written", str(failed)))
    return _table(("Event", "Times"), counts) if counts else ""


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heading)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _data(story: ReportData) -> str:
    corpora_table = _table(("Corpus", "Share of sequences", "Documents", "Digest"), story.corpora)
    if story.index is None:
        return corpora_table
    splits = [
        (name.capitalize(), f"{split.documents:,}", f"{split.text_bytes:,}", f"{split.tokens:,}")
        for name, split in sorted(story.index.splits.items())
    ]
    return f"{corpora_table}<br>{_table(('Split', 'Documents', 'Bytes of text', 'Tokens'), splits)}"


def _texts(spec: PretrainRunSpec, samples: Sequence[Sample]) -> str:
    prompts = dict.fromkeys(sample.prompt for sample in samples)
    between = " → " if spec.objective.type == "seq2seq" else ""
    return "".join(_texts_of(prompt, between, [s for s in samples if s.prompt == prompt]) for prompt in prompts)


def _texts_of(prompt: str, between: str, samples: Sequence[Sample]) -> str:
    if len(samples) > SAMPLE_STEPS:
        last = len(samples) - 1
        samples = [samples[last * n // (SAMPLE_STEPS - 1)] for n in range(SAMPLE_STEPS)]
    rows = "".join(
        f'<tr><td>{s.step:,}</td><td class="text"><b>{escape(s.prompt)}</b>{between}{escape(s.text)}</td></tr>'
        for s in samples
    )
    head = '<thead><tr><th>Update</th><th class="text">Text</th></tr></thead>'
    name = escape(prompt.strip().splitlines()[0] if prompt.strip() else "(empty)")
    return f"<details open><summary>{name}</summary><table>{head}<tbody>{rows}</tbody></table></details>"


def _configuration(spec: PretrainRunSpec) -> str:
    """The part of the spec that decides what is learnt: the number of workers, for one, does not."""
    text = yaml.safe_dump(stage_spec(spec), sort_keys=False, allow_unicode=True)
    return f"<details><summary>spec</summary><pre>{escape(text)}</pre></details>"
