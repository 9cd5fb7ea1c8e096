"""`python -m tests.demo.pictures`: the pictures of the README, made from sample data by the code that users run.

`docs/images/live.svg` is the live table of `hatchery watch`; `docs/images/report.png` is the report page of a training
run, as headless Chromium renders it; without Chromium that file is left as it is.
"""

import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import yaml
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from tests.support.operator.status_objects import completed, condition, resource, running

from hatchery_api.contract import HubTarget, JobInput, Output
from hatchery_api.resources.pretrain import Loss, PretrainResult, PretrainRunSpec
from hatchery_api.status import InputRecord
from hatchery_cli import RunView, live_view
from hatchery_jobs.pretrain.report import write_report
from hatchery_jobs.pretrain.training.schedule import learning_rate

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs/images"
SAMPLE = ROOT / "manifests/samples/pipeline.yaml"

LIVE_COLUMNS = 104
"""Characters in a line of the live table."""

REPORT_PIXELS = (1000, 792)
"""Width and height of the screenshot: the numbers and the loss curve, which begin the page."""

CHROMIUM_SECONDS = 120
"""Longest time Chromium may take."""

NOW = datetime(2026, 1, 1, 10, 4, 26, tzinfo=UTC)
"""Time of the live table; its runs are four minutes old."""

STEPS, BATCH_TOKENS, PARAMETERS = 400, 2048, 1_350_400
EVALUATED_EVERY = 40
INITIAL, FINAL = 8.517, 4.653
"""Validation loss before and after a run of the sample pipeline on two cores."""


def loss_at(step: int) -> float:
    """A loss that falls as that of the sample pipeline does."""
    return FINAL + (INITIAL - FINAL) * math.exp(-step / 70)


def noisy_losses(last: int) -> list[tuple[float, float]]:
    """Training losses of the first steps, scattered as those of single batches are."""
    chance = Random(1)
    return [(float(step), loss_at(step) + chance.gauss(0, 0.12)) for step in range(1, last + 1)]


def live_picture() -> str:
    """The live table as SVG, self-contained, while the PretrainRun of a pipeline trains."""
    done = 285
    losses = noisy_losses(done)
    metrics = {
        "done": str(done),
        "total": str(STEPS),
        "unit": "steps",
        "loss": f"{losses[-1][1]}",
        "tokens_per_second": "8721.3",
    }
    objects = [
        completed("CorpusBuild", "stdlib"),
        completed("TokenizerBuild", "stdlib"),
        running(
            name="stdlib",
            conditions=[condition("Succeeded", "Unknown", "Running", "2 of 2 pods of Job stdlib-train-a1 are running")],
            progress={
                "text": f"{done}/{STEPS} steps ({done * 100 // STEPS}%)",
                "eta": "28s",
                "metrics": [{"name": name, "value": value} for name, value in metrics.items()],
            },
        ),
        resource(
            "EvalRun",
            "stdlib",
            conditions=[
                condition("Succeeded", "Unknown", "Waiting", "waiting for PretrainRun stdlib, which is not ready")
            ],
        ),
    ]
    runs = [RunView.of(made) for made in objects]
    page = Console(record=True, width=LIVE_COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    page.print(live_view(runs, {runs[2].label: losses}, NOW))
    without_fonts = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return page.export_svg(title="hatchery watch --all -n demo", code_format=without_fonts, unique_id="live")


def sample_run(folder: Path) -> Path:
    """A finished run with its curve, samples and timeline; gives its report page."""
    lines: list[dict[str, float]] = []
    evaluated = {step: loss_at(step) for step in range(0, STEPS + 1, EVALUATED_EVERY)}
    lines.append({"step": 0, "eval_loss": evaluated[0], "bits_per_byte": evaluated[0] * 0.44})
    chance, job = Random(2), _job()
    for step, loss in noisy_losses(STEPS):
        rate = learning_rate(int(step), job.spec.schedule)
        norm = 0.6 + 2 * math.exp(-step / 30) + abs(chance.gauss(0, 0.1))
        lines.append({"step": step, "loss": loss, "learning_rate": rate, "gradient_norm": norm})
        if step in evaluated:
            lines.append(
                {"step": step, "eval_loss": evaluated[int(step)], "bits_per_byte": evaluated[int(step)] * 0.44}
            )
    _write_lines(folder / "metrics.jsonl", lines)
    prompt, text = (
        "def is_empty(self):",
        '\n    """Return True if the queue is empty."""\n    return len(self._queue) == 0',
    )
    _write_lines(
        folder / "samples.jsonl", [{"step": STEPS, "prompt": prompt, "text": text, "tokens": 24, "ended": True}]
    )
    _write_lines(folder / "run/timeline.jsonl", _events(chance))
    lasting = PretrainResult(
        parameters=PARAMETERS, tokens_per_step=BATCH_TOKENS, step=STEPS, steps=STEPS, tokens=STEPS * BATCH_TOKENS,
        loss=Loss(train=lines[-2]["loss"], eval=FINAL, initial=INITIAL), perplexity=math.exp(FINAL),
        initial_perplexity=math.exp(INITIAL), bits_per_byte=2.0507,
    )  # fmt: skip
    timed = lasting.model_copy(update={"tokens_per_second": 8721.3, "goodput": 0.97})
    write_report(folder, job, None, lasting, timed)
    return folder / "run/report.html"


def _events(chance: Random) -> list[dict[str, Any]]:
    """A run that was preempted once, with an update four times a second."""
    events: list[dict[str, Any]] = []
    clock = NOW.timestamp()
    for first, last, cause in ((0, 250, "interrupted"), (250, STEPS, "done")):
        events.append({"time": clock, "event": "began", "step": first, "workers": 2})
        for step in range(first + 1, last + 1):
            total = 0.235 + abs(chance.gauss(0, 0.01))
            clock += total
            parts = {"data": 0.004, "compute": total - 0.024, "optimizer": 0.015, "total": total}
            events.append({"time": clock, "event": "update", "step": step, "tokens": BATCH_TOKENS, **parts})
        events.append({"time": clock, "event": "checkpoint", "step": last, "seconds": 0.4})
        events.append({"time": clock, "event": "ended", "step": last, "cause": cause})
        clock += 6
    return events


def _write_lines(path: Path, lines: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _job() -> JobInput[PretrainRunSpec]:
    """The input of the training pods of the sample pipeline."""
    [sample] = [d for d in yaml.safe_load_all(SAMPLE.read_text()) if d["kind"] == "PretrainRun"]
    tokenizer = InputRecord(role="tokenizer", kind="TokenizerBuild", name="stdlib", uri="/x", digest="ab" * 32)
    return JobInput[PretrainRunSpec](
        kind="PretrainRun", namespace="demo", name=sample["metadata"]["name"], uid="1", stage="train", attempt=1,
        inputs=[tokenizer], spec=PretrainRunSpec.model_validate(sample["spec"]), output=Output(root="/x"),
        hub=HubTarget(endpoint="https://hub.example"),
    )  # fmt: skip


def chromium() -> str | None:
    """Path of Chromium, if it is installed."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def screenshot(page: Path, picture: Path, program: str) -> None:
    """Renders the top of a page to PNG."""
    width, height = REPORT_PIXELS
    with tempfile.TemporaryDirectory() as profile:
        command = [
            program,
            "--headless",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            f"--screenshot={picture}",
            page.as_uri(),
        ]
        if os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # Chromium has no sandbox for root; the page is our own
        subprocess.run(command, check=True, capture_output=True, timeout=CHROMIUM_SECONDS)


def main() -> int:
    """Writes the pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    (IMAGES / "live.svg").write_text(live_picture())
    program = chromium()
    if program is None:
        print("docs/images/report.png: skipped, Chromium is not installed (apt-get install chromium)", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        screenshot(sample_run(Path(folder)), IMAGES / "report.png", program)
    return 0


if __name__ == "__main__":
    sys.exit(main())
