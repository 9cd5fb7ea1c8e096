"""The guard alone: verdicts, and what the state remembers."""

import math

import pytest

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import Guard, LossSpike
from hatchery_jobs.pretrain.state import RunState
from hatchery_jobs.pretrain.training.guard import judge, stop_error, with_loss, with_skipped

SPIKE = Guard(loss_spike=LossSpike(factor=2, window=8, action="rollback"), max_interventions=2)


@pytest.mark.parametrize(
    ("loss", "norm", "scaled", "action"),
    [
        (math.nan, 1.0, False, "skip"),
        (math.inf, 1.0, True, "skip"),
        (3.0, math.nan, False, "skip"),
        (3.0, math.inf, True, "accept"),  # the scaler of fp16 leaves it out by itself
        (3.0, 1e9, False, "accept"),
    ],
)
def test_what_is_no_number_is_not_taken(loss, norm, scaled, action) -> None:
    assert judge(Guard(non_finite="skip"), RunState(), loss, norm, scaled=scaled).action == action


def test_a_spike_is_one_only_beside_a_full_window_and_above_its_median() -> None:
    state = RunState()
    for loss in (9, 1, 1, 1, 1, 1, 1):
        state = with_loss(SPIKE, state, loss)
    assert judge(SPIKE, state, 100.0, 1.0, scaled=False).action == "accept"
    state = with_loss(SPIKE, state, 1.0)
    assert judge(SPIKE, state, 2.0, 1.0, scaled=False).action == "accept"
    verdict = judge(SPIKE, state, 2.001, 1.0, scaled=False)
    assert (verdict.action, verdict.reason) == ("rollback", Reason.LOSS_SPIKE)


def test_the_window_forgets_and_nothing_is_kept_where_nothing_is_watched() -> None:
    state = RunState()
    for loss in range(20):
        state = with_loss(SPIKE, state, float(loss))
    assert state.recent_losses == [float(n) for n in range(12, 20)]
    assert with_loss(Guard(), RunState(), 1.0).recent_losses == []


def test_neighbouring_batches_that_are_left_out_are_one_range() -> None:
    state = with_skipped(RunState(batch=4), 4, 5)
    state = with_skipped(state, 5, 6)
    state = with_skipped(state, 9, 12)
    assert state.skipped == [(4, 6), (9, 12)]
    assert (state.batch, state.interventions) == (12, 3)


def test_after_enough_interventions_the_run_ends_and_says_why() -> None:
    bad = judge(Guard(non_finite="skip"), RunState(), math.nan, 1.0, scaled=False)
    assert stop_error(SPIKE, RunState(interventions=1), 100, bad) is None
    error = stop_error(SPIKE, RunState(step=6, batch=8, interventions=2), 100, bad)
    assert error is not None
    assert "update 7 of 100, batch 8" in error.message
    assert "maxInterventions" in error.message
    assert error.reason == Reason.NON_FINITE_LOSS


def test_told_to_stop_it_stops_at_once() -> None:
    bad = judge(Guard(), RunState(), math.nan, 1.0, scaled=False)
    error = stop_error(Guard(), RunState(), 100, bad)
    assert error is not None
    assert "spec.guard" in error.message
