"""The summed loss against torch's own, which takes another way to the same numbers."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from hatchery_jobs.pretrain.objectives.batch import IGNORED, summed_cross_entropy


def both(logits, labels, outer=1.0):
    results = []
    for loss_of in (
        summed_cross_entropy,
        lambda x, y: F.cross_entropy(x.flatten(0, 1).float(), y.flatten(), ignore_index=IGNORED, reduction="sum"),
    ):
        own = logits.clone().requires_grad_()
        loss = loss_of(own, labels)
        (loss * outer).backward()
        results.append((loss.item(), own.grad))
    return results


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    ignored=st.floats(0, 1),
    scale=st.sampled_from([0.0, 1.0, 30.0, 1000.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_it_is_torchs_cross_entropy(seed, ignored, scale, dtype):
    chance = torch.Generator().manual_seed(seed)
    logits = (torch.randn(3, 5, 17, generator=chance) * scale).to(dtype)
    labels = torch.randint(17, (3, 5), generator=chance)
    labels[torch.rand(3, 5, generator=chance) < ignored] = IGNORED
    (loss, gradient), (expected, expected_gradient) = both(logits, labels, outer=0.25)
    assert loss == pytest.approx(expected, rel=1e-5, abs=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def test_a_target_too_improbable_for_a_float_has_a_finite_loss():
    logits = torch.tensor([[[0.0, 500.0]]])
    (loss, gradient), _ = both(logits, torch.tensor([[0]]))
    assert loss == 500.0
    assert gradient.tolist() == [[[-1.0, 1.0]]]


def test_nothing_to_learn_is_no_loss():
    (loss, gradient), _ = both(torch.randn(1, 2, 3), torch.full((1, 2), IGNORED))
    assert loss == 0.0
    assert not gradient.any()


def test_a_loss_that_is_no_number_stays_one():
    logits = torch.zeros(1, 2, 3)
    logits[0, 1, 2] = math.nan
    assert math.isnan(summed_cross_entropy(logits, torch.zeros(1, 2, dtype=torch.long)).item())


def test_it_is_right_to_the_last_decimals_of_single_precision():
    logits = torch.randn(2, 4, 50, dtype=torch.float32, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(8).view(2, 4)
    exact = F.cross_entropy(logits.double().flatten(0, 1), labels.flatten(), reduction="sum").item()
    assert summed_cross_entropy(logits, labels).item() == pytest.approx(exact, rel=1e-6)


def test_without_gradients_it_leaves_the_logits_alone():
    logits = torch.randn(1, 2, 3)
    before = logits.clone()
    with torch.no_grad():
        summed_cross_entropy(logits, torch.zeros(1, 2, dtype=torch.long))
    assert torch.equal(logits, before)
