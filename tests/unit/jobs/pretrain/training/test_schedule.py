"""The learning rate against closed forms."""

import math

import pytest

from hatchery_api.resources.pretrain import ScheduleSpec
from hatchery_jobs.pretrain.training.schedule import learning_rate


def schedule(**changes):
    return ScheduleSpec(**{"steps": 101, "warmup_steps": 10, "peak_lr": 1.0, "min_lr": 0.1} | changes)


@pytest.mark.parametrize(
    ("kind", "step", "expected"),
    [
        ("cosine", 0, 0.1),
        ("cosine", 4, 0.5),
        ("cosine", 9, 1.0),  # the last update of the warm-up
        ("cosine", 9 + 91 // 7, 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 7))),
        ("cosine", 100, 0.1),
        ("linear", 9 + 91 // 7, 0.1 + 0.9 * 6 / 7),
        ("linear", 100, 0.1),
        ("wsd", 89, 1.0),  # the last of the stable part: a tenth of 101 updates are 11
        ("wsd", 90, 0.1 + 0.9 * 10 / 11),
        ("wsd", 100, 0.1),
        ("constant", 50, 1.0),
        ("constant", 100, 1.0),
    ],
)
def test_closed_form(kind, step, expected):
    assert learning_rate(step, schedule(type=kind)) == pytest.approx(expected, abs=1e-12)


def test_no_update_is_wasted_at_rate_zero_before_the_last():
    rates = [learning_rate(step, schedule(min_lr=0.0)) for step in range(101)]
    assert min(rates[:-1]) > 0
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_without_warmup_the_first_update_has_the_peak():
    assert learning_rate(0, schedule(warmup_steps=0)) == 1.0


def test_a_run_of_one_update():
    assert learning_rate(0, schedule(steps=1, warmup_steps=0)) == 1.0


def test_it_never_rises_after_the_warmup():
    for kind in ("cosine", "linear", "constant", "wsd"):
        rates = [learning_rate(step, schedule(type=kind)) for step in range(9, 101)]
        assert rates == sorted(rates, reverse=True)


def test_a_longer_wsd_run_begins_like_a_shorter_one():
    short, long = schedule(type="wsd", decay_steps=20), schedule(type="wsd", decay_steps=20, steps=500)
    assert [learning_rate(n, short) for n in range(81)] == [learning_rate(n, long) for n in range(81)]
    assert learning_rate(90, short) == pytest.approx(0.1 + 0.9 * (1 - 10 / 20))
    assert learning_rate(90, long) == 1.0
