"""`status.progress` for a pod's report."""

import pytest
from tests.support.operator.builders import NOW

from hatchery_api.contract import TrainerStatus
from hatchery_api.status import ProgressMetric
from hatchery_operator.progress.writer import progress_status


@pytest.mark.parametrize(
    ("metrics", "loss"),
    [
        ({"loss": "3.245678"}, "3.246"),
        ({"train_loss": "90.20550417490631"}, "90.21"),
        ({"loss": "nan"}, "nan"),
        ({"loss": "high"}, None),
        ({"step": "9"}, None),
    ],
)
def test_the_loss_is_rounded_for_people(metrics: dict[str, str], loss: str | None) -> None:
    values = [ProgressMetric(name=name, value=value) for name, value in metrics.items()]
    found = progress_status(TrainerStatus(metrics=values), NOW)
    assert found.loss == loss
    assert {metric.name: metric.value for metric in found.metrics} == metrics


@pytest.mark.parametrize(("seconds", "text"), [(None, None), (0, "0s"), (70, "1m10s"), (90_000, "1d01h")])
def test_the_time_left_is_for_people(seconds: int | None, text: str | None) -> None:
    assert progress_status(TrainerStatus(estimated_remaining_seconds=seconds), NOW).eta == text


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
