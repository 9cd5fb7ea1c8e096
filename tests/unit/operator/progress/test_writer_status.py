"""From a pod's report to the progress people read."""

import pytest
from tests.support.operator.builders import NOW

from hatchery_api.contract import TrainerStatus
from hatchery_api.status import ProgressMetric
from hatchery_operator.progress.writer import duration_text, progress_status


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (86_399, "23h59m"), (90_000, "1d01h")],
)
def test_durations(seconds: int, text: str) -> None:
    assert duration_text(seconds) == text


def shown(percentage: int | None = None, **metrics: str) -> tuple[str, list[str]]:
    values = [ProgressMetric(name=name, value=value) for name, value in metrics.items()]
    found = progress_status(TrainerStatus(progress_percentage=percentage, metrics=values), NOW)
    return found.text, [metric.name for metric in found.metrics]


def test_texts() -> None:
    assert shown(45, step="9", steps="20", loss="2") == ("9/20 (45%)", ["step", "steps", "loss"])
    assert shown(45, current_step="9", total_steps="20")[0] == "9/20 (45%)"
    assert shown(45, text="read 9 files") == ("read 9 files", [])
    assert shown(45)[0] == "45%"
    assert shown(None, step="1", steps="2")[0] == "1/2"
    assert shown()[0] == ""


def test_a_status_stays_small_however_much_a_pod_reports() -> None:
    found = progress_status(
        TrainerStatus(metrics=[ProgressMetric(name=f"m{n}", value="x" * 64) for n in range(256)]), NOW
    )
    assert len(found.metrics) == 32
