"""Which row is at which position."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.jobs.tokens import write_store

from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.data.loader import StoreSource, corpus_weights
from hatchery_jobs.pretrain.data.sampler import BLOCK, Interleave, Mixture, SequenceOrder, quotas
from hatchery_jobs.runtime.errors import SpecError

SETTINGS = settings(max_examples=40, deadline=None)
WEIGHTS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6)


@SETTINGS
@given(st.integers(0, 2**31), st.integers(1, 5000), st.integers(0, 10**6))
def test_every_epoch_is_a_permutation(seed, sequences, epoch):
    numbers = SequenceOrder(seed, sequences)(range(epoch * sequences, (epoch + 1) * sequences))
    assert (np.sort(numbers) == np.arange(sequences)).all()


def test_epochs_and_seeds_differ():
    first, second = np.split(SequenceOrder(1, 500)(range(1000)), 2)
    other = SequenceOrder(2, 500)(range(500))
    assert (first == second).mean() < 0.02
    assert (first == other).mean() < 0.02


def test_neighbours_are_scattered():
    n = 10_000
    numbers = SequenceOrder(5, n)(range(n))
    steps = np.abs(np.diff(numbers))
    assert steps.mean() == pytest.approx(n / 3, rel=0.03)  # of a uniform random permutation
    ranks = np.corrcoef(np.arange(n), numbers)[0, 1]
    assert abs(ranks) < 0.04


def test_the_first_sequence_is_uniform_over_epochs():
    firsts = Counter(int(SequenceOrder(11, 8)([epoch * 8])[0]) for epoch in range(4000))
    chi_square = sum((firsts[n] - 500) ** 2 / 500 for n in range(8))
    assert chi_square < 24.3  # 7 degrees of freedom, one in a thousand


@SETTINGS
@given(st.integers(0, 2**31), st.lists(st.integers(0, 50), min_size=1, max_size=5).filter(any))
def test_without_weights_all_rows_are_one_permutation(seed, rows):
    total = sum(rows)
    assert (Mixture(seed, rows)(range(total)) == SequenceOrder(seed, total)(range(total))).all()


@SETTINGS
@given(WEIGHTS)
def test_quotas_are_exact_and_nobody_gets_nothing(weights):
    shares = quotas(weights)
    exact = np.asarray(weights) / sum(weights) * BLOCK
    assert shares.sum() == BLOCK
    assert shares.min() >= 1
    if exact.min() >= 1:
        assert (np.abs(shares - exact) < 1).all()


@SETTINGS
@given(st.integers(0, 2**31), WEIGHTS, st.integers(0, 10**9), st.data())
def test_every_block_has_the_quotas_and_every_epoch_of_a_corpus_is_a_permutation(seed, weights, block, data):
    rows = data.draw(st.lists(st.integers(1, 40), min_size=len(weights), max_size=len(weights)))
    order = Mixture(seed, rows, weights)
    ends = np.cumsum(rows)
    numbers = order(range(block * BLOCK, (block + 1) * BLOCK))
    corpora = np.searchsorted(ends, numbers, side="right")
    assert np.bincount(corpora, minlength=len(rows)).tolist() == quotas(weights).tolist()
    for corpus, count in enumerate(rows):
        own = numbers[corpora == corpus] - (ends[corpus] - count)
        ahead = -(block * int(quotas(weights)[corpus])) % count  # to the next beginning of an epoch
        for first in range(ahead, len(own) - count + 1, count):
            assert sorted(own[first : first + count].tolist()) == list(range(count))


def test_a_far_position_is_what_counting_to_it_gives():
    turns = Interleave(3, [1, 2, 0.5])
    seen = Counter()
    for position in range(5 * BLOCK):
        corpus, visit = (int(x[0]) for x in turns(np.asarray([position])))
        assert visit == seen[corpus]
        seen[corpus] += 1
    far = 10**12 // BLOCK
    corpora, visits = turns(np.arange(far * BLOCK, (far + 1) * BLOCK))
    for corpus in range(3):
        assert visits[corpora == corpus].tolist() == list(range(far * seen[corpus] // 5, (far + 1) * seen[corpus] // 5))


@SETTINGS
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.booleans())
def test_the_rows_do_not_depend_on_how_positions_are_asked_for(cuts, weighted):
    order = Mixture(3, [97, 12], [1, 3] if weighted else None)
    whole = order(range(10**12, 10**12 + sum(cuts)))
    starts = np.cumsum([0, *cuts]) + 10**12
    parts = [order(range(a, b)) for a, b in zip(starts.tolist(), starts[1:].tolist(), strict=False)]
    assert (whole == np.concatenate(parts)).all()


def test_one_corpus_has_the_same_order_with_a_weight_and_without():
    assert (Mixture(5, [77], [3.0])(range(500)) == Mixture(5, [77])(range(500))).all()


def test_a_mixture_wants_a_weight_for_each_corpus():
    with pytest.raises(ValueError, match="1 weights for 2 corpora"):
        Mixture(1, [1, 2], [1])


@pytest.mark.parametrize("weights", [None, [1.0, 2.0]])
@pytest.mark.parametrize("packing", ["concat", "bestFit"])
def test_a_feed_gives_the_same_rows_whatever_the_split_of_a_batch(tmp_path, weights, packing):
    corpora = [{"train": [[[n] * 5 for n in range(k, k + 30)]], "validation": [[[k] * 40]]} for k in (1, 100)]
    feed = StoreSource(write_store(tmp_path, corpora, packing=packing), 9, weights, positions=True)
    whole = feed.training(1000, 24)
    parts = [feed.training(first, 8) for first in (1000, 1008, 1016)]
    for field in ("tokens", "positions", "is_target"):
        one = getattr(whole, field)
        if one is not None:
            assert (one == np.concatenate([getattr(part, field) for part in parts])).all()
    assert feed.validation_rows == len(feed.validation(0, feed.validation_rows).tokens) > 1


def test_an_epoch_of_a_feed_holds_every_token_once(tmp_path):
    corpora = [{"train": [[list(range(k, k + 50))]]} for k in (1, 100)]
    feed = StoreSource(write_store(tmp_path, corpora, length=5), 1)
    targets = feed.training(0, 20).tokens[:, 1:]
    assert sorted(targets.ravel().tolist()) == sorted([*range(2, 51), 0, *range(101, 150), 0])


def test_all_corpora_have_a_weight_or_none():
    def weights(*values):
        corpora = [{"corpusRef": {"name": "c"}, **({} if v is None else {"weight": v})} for v in values]
        spec = {"corpora": corpora, "tokenizerRef": {"name": "t"}, "schedule": {"steps": 1}}
        return corpus_weights(PretrainRunSpec.model_validate(spec))

    assert weights(None, None) is None
    assert weights(1, 2.5) == [1, 2.5]
    with pytest.raises(SpecError, match=r"spec.corpora\[1\].weight is missing"):
        weights(1, None)
