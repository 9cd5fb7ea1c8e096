"""What people read of a finished run: model card, HTML reports and a picture of the loss curve.

`write_report` writes them into the model's folder. May be imported by `pretrain.train` alone; reads `pretrain.record`,
and never imports torch.
"""

from pathlib import Path

from hatchery_api.contract import JobInput
from hatchery_api.resources.pretrain import PretrainResult, PretrainRunSpec
from hatchery_jobs.pretrain.data import TokenIndex
from hatchery_jobs.pretrain.record import CURVE, SAMPLES, TIMELINE, read_curve, read_samples, read_timeline
from hatchery_jobs.pretrain.report.card import model_card
from hatchery_jobs.pretrain.report.data import CURVE_PICTURE, REPORT, ReportData
from hatchery_jobs.pretrain.report.html import loss_chart, report_html
from hatchery_jobs.runtime import RECORD, write_atomically

__all__ = ["write_report"]


def write_report(
    folder: Path,
    job: JobInput[PretrainRunSpec],
    index: TokenIndex | None,
    lasting: PretrainResult,
    timed: PretrainResult,
) -> None:
    """Writes README.md, the report and the picture, and the report with times into the run's record.

    Args:
        folder: the model's, with curve, samples and record.
        job: the run.
        index: its tokens; None for text that was not encoded before.
        lasting: the numbers that are equal for equal runs.
        timed: all numbers.
    """
    curve, samples = read_curve(folder / CURVE), read_samples(folder / SAMPLES)
    lines = read_timeline(folder / RECORD / TIMELINE)
    report = ReportData(job, index, lasting, curve, samples)
    pages = {
        "README.md": model_card(report),
        REPORT: report_html(report),
        CURVE_PICTURE: loss_chart(report).svg(alone=True),
        f"{RECORD}/{REPORT}": report_html(ReportData(job, index, timed, curve, samples, lines)),
    }
    (folder / RECORD).mkdir(exist_ok=True)
    for name, text in pages.items():
        write_atomically(folder / name, text.encode())
