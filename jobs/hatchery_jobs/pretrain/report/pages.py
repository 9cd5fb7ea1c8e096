"""What people read of a finished run: card, reports and the picture of its curve, written into the model's folder."""

from pathlib import Path

from hatchery_api.contract import JobInput
from hatchery_api.resources.pretrain import PretrainResult, PretrainRunSpec
from hatchery_jobs.pretrain.data.token_store import TokenIndex
from hatchery_jobs.pretrain.record.curve import CURVE, read_curve
from hatchery_jobs.pretrain.record.event_log import TIMELINE, read_timeline
from hatchery_jobs.pretrain.report.card import model_card
from hatchery_jobs.pretrain.report.html import CURVE_PICTURE, REPORT, ReportData, loss_chart, report_html
from hatchery_jobs.pretrain.training.generate import SAMPLES, read_samples
from hatchery_jobs.runtime import RECORD, write_atomically


def write_pages(
    folder: Path,
    job: JobInput[PretrainRunSpec],
    index: TokenIndex | None,
    lasting: PretrainResult,
    timed: PretrainResult,
) -> None:
    """Writes README.md, the report and the picture, and beside the content the report with times.

    Args:
        folder: the model's, with curve, samples and record.
        job: whose run it was.
        index: what was learnt from; None for text that was not encoded before.
        lasting: the numbers that are equal for equal runs.
        timed: all numbers.
    """
    curve, samples = read_curve(folder / CURVE), read_samples(folder / SAMPLES)
    story = ReportData(job, index, lasting, curve, samples)
    pages = {
        "README.md": model_card(story),
        REPORT: report_html(story),
        CURVE_PICTURE: loss_chart(story).svg(alone=True),
        f"{RECORD}/{REPORT}": report_html(
            ReportData(job, index, timed, curve, samples, read_timeline(folder / RECORD / TIMELINE))
        ),
    }
    (folder / RECORD).mkdir(exist_ok=True)
    for name, text in pages.items():
        write_atomically(folder / name, text.encode())
