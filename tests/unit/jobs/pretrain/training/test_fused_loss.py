"""The loss that the output layer computes in parts, against torch's own over all logits at once."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from hatchery_jobs.pretrain.objectives import IGNORED, Batch
from hatchery_jobs.pretrain.training import fused_loss as module
from hatchery_jobs.pretrain.training.fused_loss import Head

WIDTH = 6


def batch_of(labels):
    return Batch({}, labels, int((labels != IGNORED).sum()))


def head_of(vocabulary, *, bias=False, weight=None):
    linear = torch.nn.Linear(WIDTH, vocabulary, bias=bias)
    if weight is not None:
        linear.weight.data = weight
    return Head(linear)


def asked(head, states, labels):
    head.batch = batch_of(labels)
    return head(states)


def plain(head, states, labels):
    logits = F.linear(states, head.weight, head.bias).flatten(0, 1).float()
    return F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="sum")


def both(head, states, labels, outer=1.0):
    results = []
    for loss_of in (asked, plain):
        head.zero_grad()
        own = states.clone().requires_grad_()
        loss = loss_of(head, own, labels)
        (loss * outer).backward()
        results.append((loss.item(), own.grad, *[p.grad for p in head.parameters()]))
    return results


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    ignored=st.floats(0, 1),
    scale=st.sampled_from([0.0, 1.0, 30.0, 1000.0]),
    bias=st.booleans(),
    rows=st.integers(1, 20),
)
def test_it_is_torchs_cross_entropy_however_it_is_cut(seed, ignored, scale, bias, rows):
    with torch.random.fork_rng(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CPU_ROWS", rows)
        torch.manual_seed(seed)
        head, states, labels = head_of(17, bias=bias), torch.randn(3, 5, WIDTH) * scale, torch.randint(17, (3, 5))
        labels[torch.rand(3, 5) < ignored] = IGNORED
        (loss, *gradients), (expected, *expected_gradients) = both(head, states, labels, outer=0.25)
    assert loss == pytest.approx(expected, rel=1e-5, abs=1e-5)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6 * max(1.0, scale))


def test_products_have_the_precision_that_is_asked_for_and_the_loss_does_not():
    torch.manual_seed(5)
    head, states, labels = head_of(40), torch.randn(2, 4, WIDTH), torch.arange(8).view(2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        (loss, *gradients), (expected, *expected_gradients) = both(head, states, labels)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert loss != plain(head, states, labels).item()
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, wanted, rtol=0.05, atol=0.02)


def test_a_target_too_improbable_for_a_float_has_a_finite_loss():
    states = torch.zeros(1, 1, WIDTH)
    states[0, 0, 0] = 1.0
    weight = torch.zeros(2, WIDTH)
    weight[1, 0] = 500.0
    head = head_of(2, weight=weight)
    (loss, gradient, weight_gradient), _ = both(head, states, torch.tensor([[0]]))
    assert loss == 500.0
    assert gradient[0, 0, 0] == 500.0
    assert weight_gradient[:, 0].tolist() == [-1.0, 1.0]


def test_nothing_to_learn_is_no_loss():
    (loss, *gradients), _ = both(head_of(3, bias=True), torch.randn(1, 2, WIDTH), torch.full((1, 2), IGNORED))
    assert loss == 0.0
    assert all(not gradient.any() for gradient in gradients)


def test_a_loss_that_is_no_number_stays_one():
    states = torch.zeros(1, 2, WIDTH)
    states[0, 1, 2] = math.nan
    assert math.isnan(asked(head_of(3), states, torch.zeros(1, 2, dtype=torch.long)).item())


def test_it_is_right_to_the_last_decimals_of_single_precision():
    torch.manual_seed(3)
    head, states, labels = head_of(50), torch.randn(2, 4, WIDTH), torch.arange(8).view(2, 4)
    exact = plain(head_of(50, weight=head.weight.data.double()), states.double(), labels).item()
    assert asked(head, states, labels).item() == pytest.approx(exact, rel=1e-6)


def test_without_gradients_it_makes_none():
    head, states, labels = head_of(3), torch.randn(1, 2, WIDTH), torch.zeros(1, 2, dtype=torch.long)
    with torch.no_grad():
        loss = asked(head, states, labels)
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(plain(head, states, labels).item(), rel=1e-6)


def test_logits_of_all_positions_are_never_held():
    positions, vocabulary = 4 * module.CPU_ROWS, 5000
    head, states = head_of(vocabulary), torch.randn(1, positions, WIDTH, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        asked(head, states, torch.zeros(1, positions, dtype=torch.long)).backward()
    held = highest = 0
    for event in sorted(profile.events(), key=lambda event: event.time_range.start):
        if event.name == "[memory]":
            held += event.cpu_memory_usage
            highest = max(highest, held)
    all_logits = positions * vocabulary * 4
    assert highest < all_logits / 2
