"""Token shards and the order of training."""

import time
from collections import Counter

import numpy as np
import pytest

from hatchery_jobs.pretrain.data import INDEX, SequenceOrder, SplitIndex, TokenIndex, TokenStore, token_type
from hatchery_jobs.pretrain.encode import ShardWriter


@pytest.mark.parametrize("sequences", [1, 2, 3, 4, 5, 16, 17, 100, 1000, 4097])
def test_every_epoch_is_a_permutation(sequences):
    order = SequenceOrder(7, sequences)
    for epoch in range(3):
        numbers = order(range(epoch * sequences, (epoch + 1) * sequences))
        assert sorted(numbers) == list(range(sequences))


def test_epochs_and_seeds_differ():
    first, second = np.split(SequenceOrder(1, 500)(range(1000)), 2)
    other = SequenceOrder(2, 500)(range(500))
    assert (first == second).mean() < 0.02
    assert (first == other).mean() < 0.02


def test_the_order_is_a_function_of_the_position():
    order = SequenceOrder(3, 97)
    whole = order(range(400))
    pieces = np.concatenate([order(range(n, n + 8)) for n in range(0, 400, 8)])
    assert (whole == pieces).all()


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


def test_far_positions_cost_no_more_than_near_ones():
    order = SequenceOrder(1, 10**10)

    def fastest(position):
        times = []
        for _ in range(30):
            began = time.perf_counter()
            order(range(position, position + 192))
            times.append(time.perf_counter() - began)
        return min(times)

    assert fastest(10**15) < 5 * fastest(0) + 1e-4
    assert (order(range(10**15, 10**15 + 100)) < 10**10).all()


def test_token_type_is_the_smallest():
    assert [token_type(n) for n in (2, 65_536, 65_537)] == ["uint16", "uint16", "uint32"]


@pytest.mark.parametrize("shard_tokens", [3, 10, 64, 1000])
@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_sequences_cross_shards(tmp_path, shard_tokens, dtype):
    tokens = np.arange(101, dtype=np.uint32) * (600 if dtype == "uint16" else 40_000)
    writer = ShardWriter(tmp_path, "train", np.dtype(dtype), shard_tokens)
    for part in np.array_split(tokens, 7):
        writer.write(part)
    split = SplitIndex(documents=1, tokens=101, text_bytes=1, shards=writer.shards)
    empty = SplitIndex(documents=0, tokens=0, text_bytes=0, shards=[])
    index = TokenIndex(dtype=dtype, vocab_size=2**31, eos_id=0, splits={"train": split, "validation": empty})
    (tmp_path / INDEX).write_text(index.model_dump_json(by_alias=True))
    store = TokenStore(tmp_path, 20)
    assert store.sequences("train") == 5
    assert store.sequences("validation") == 0
    rows = store.rows("train", [4, 0, 2])
    for row, start in zip(rows, (80, 0, 40), strict=True):
        assert (row == tokens[start : start + 21]).all()
