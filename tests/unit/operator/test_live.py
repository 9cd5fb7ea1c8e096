from datetime import UTC, datetime, timedelta

import pytest

from hatchery_api.contract import TrainerStatus
from hatchery_api.status import ProgressMetric
from hatchery_operator.live import WRITE_SECONDS, duration_text, progress_status

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def reported(share=None, left=None, **numbers):
    metrics = [ProgressMetric(name=name, value=value) for name, value in numbers.items()]
    return TrainerStatus(progress_percentage=share, estimated_remaining_seconds=left, metrics=metrics)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (reported(45, done="90", total="200", unit="steps"), "90/200 steps (45%)"),
        (reported(45, current_step="90", total_steps="200"), "90/200 (45%)"),
        (reported(45, step="90", steps="200"), "90/200 (45%)"),
        (reported(None, done="90", total="200", unit="files"), "90/200 files"),
        (reported(45, total_steps="200"), "45%"),
        (reported(45, text="shard 3 of 7", done="1", total="2"), "shard 3 of 7"),
        (reported(), ""),
    ],
)
def test_progress_for_people(status, text):
    assert progress_status(status, NOW, None).text == text


def test_long_words_of_a_pod_are_cut_to_what_the_api_takes():
    assert len(progress_status(reported(1, done="9" * 64, total="9" * 64, unit="x" * 64), NOW, None).text) == 128


def test_progress_is_written_every_ten_seconds_at_most():
    before = progress_status(reported(1), NOW, None)
    soon = progress_status(reported(2), NOW + timedelta(seconds=WRITE_SECONDS - 1), before)
    later = progress_status(reported(3), NOW + timedelta(seconds=WRITE_SECONDS), before)
    assert (soon.percentage, later.percentage) == (1, 3)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (61, "1m01s"), (3599, "59m59s"), (4320, "1h12m"), (90_000, "1d01h")]
)
def test_a_duration_shows_its_two_largest_units(seconds, text):
    assert duration_text(seconds) == text
