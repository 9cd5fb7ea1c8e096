"""The split against its closed form."""

import numpy as np
import pytest

from hatchery_api.resources.corpus import Split
from hatchery_jobs.corpus.split import in_validation


def numbers(count):
    return np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


@pytest.mark.parametrize("share", [0.005, 0.1, 0.5])
def test_the_share_is_that_of_the_spec(share):
    count = 20_000
    chosen = in_validation(Split(validation=share), numbers(count), numbers(count))
    assert abs(chosen.sum() - count * share) < 4 * (count * share * (1 - share)) ** 0.5


def test_no_cluster_is_on_both_sides():
    clusters = np.repeat(numbers(500), 4)
    chosen = in_validation(Split(validation=0.3), numbers(2000), clusters).reshape(500, 4)
    assert (chosen.all(axis=1) == chosen.any(axis=1)).all()
    by_document = in_validation(Split(validation=0.3, by="fraction"), numbers(2000), clusters).reshape(500, 4)
    assert not (by_document.all(axis=1) == by_document.any(axis=1)).all()


@pytest.mark.parametrize("count", [2, 3, 10])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [1e-9, 0.5])
def test_neither_side_is_empty(count, seed, share):
    chosen = in_validation(Split(validation=share, seed=seed), numbers(count), numbers(count))
    assert 0 < chosen.sum() < count


def test_nothing_asked_nothing_given():
    assert not in_validation(Split(validation=0), numbers(50), numbers(50)).any()


def test_a_single_cluster_is_for_training():
    assert not in_validation(Split(validation=0.5), numbers(9), np.zeros(9, np.uint64)).any()


def test_a_document_s_side_does_not_depend_on_the_others():
    split = Split(validation=0.2)
    few, many = in_validation(split, numbers(100), numbers(100)), in_validation(split, numbers(200), numbers(200))
    assert (few == many[:100]).all()


def test_seeds_choose_differently():
    first, second = (in_validation(Split(validation=0.3, seed=s), numbers(200), numbers(200)) for s in (1, 2))
    assert (first != second).any()
