"""Spans and pairs for an encoder-decoder."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.support.jobs.objective_sources import (
    SPECIAL,
    ListPairSource,
    ListSource,
    library_rows,
    objective_spec,
    small_vocabulary,
)

from hatchery_api.resources.pretrain import Seq2seqSpec
from hatchery_jobs.pretrain.model import resolve_config
from hatchery_jobs.pretrain.objectives import IGNORED, build_objective, objective_info, row_tokens
from hatchery_jobs.pretrain.objectives.spans import Corruption
from hatchery_jobs.pretrain.training.fused_loss import LossModel
from hatchery_jobs.pretrain.training.model_factory import build_model
from hatchery_jobs.runtime.errors import DataError

CPU = torch.device("cpu")
SENTINELS = np.array(SPECIAL.sentinels)


def restored(source: np.ndarray, target: np.ndarray, sentinels: np.ndarray, eos: int) -> list[int]:
    """The row that input and target were made of, by T5's rules."""
    assert source[-1] == target[-1] == eos
    spans: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token in sentinels and token not in spans:
            spans[int(token)] = current = []
        else:
            current.append(int(token))
    assert list(spans) == list(sentinels[: len(spans)])  # in their order, from the first
    found: list[int] = []
    for token in source[:-1]:
        found += spans.pop(int(token)) if token in spans else [int(token)]
    assert not spans
    return found


@given(
    tokens=st.integers(2, 300),
    density=st.floats(0.01, 0.99),
    mean=st.floats(1, 64),
    seed=st.integers(0, 1000),
)
def test_input_and_target_hold_the_whole_row(tokens, density, mean, seed):
    numbers = Corruption.of_row(tokens, density, mean)
    row, sentinels = np.arange(tokens), np.arange(1000, 1000 + numbers.spans)
    source, target = numbers.apply(row, sentinels, -1, np.random.default_rng(seed))
    assert restored(source, target, sentinels, -1) == row.tolist()
    assert (len(source), len(target)) == (numbers.input_tokens, numbers.target_tokens)
    assert numbers.noise_tokens == min(max(round(tokens * density), 1), tokens - 1)
    assert source[0] == 0  # text comes first, and no two sentinels touch
    assert not (np.isin(source[:-1], sentinels) & np.isin(source[1:], sentinels)).any()


@pytest.mark.parametrize(("sequence", "row", "target"), [(512, 568, 114), (114, 126, 26)])
def test_a_row_is_as_long_as_t5_makes_it(sequence, row, target):
    """568 and 114 are what T5's own code computes for inputs of 512 tokens."""
    spec = objective_spec("seq2seq", sequence)
    assert (row_tokens(spec), objective_info(spec).target_tokens(spec)) == (row, target)


@given(sequence=st.integers(8, 400), density=st.floats(0.05, 0.9), mean=st.floats(1, 10))
def test_the_longest_row_that_fits_is_taken(sequence, density, mean):
    spec = Seq2seqSpec(noise_density=density, mean_span_tokens=mean)
    fits = [
        n
        for n in range(2, 2 * sequence)
        for c in [Corruption.of_row(n, density, mean)]
        if max(c.input_tokens, c.target_tokens) <= sequence
    ]
    found = Corruption.fitting(spec, sequence)
    assert max(found.input_tokens, found.target_tokens) <= sequence
    # lengths grow by steps, so a longer row may fit again after one that does not
    assert found.row_tokens >= max(fits) - 3


def test_spans_are_everywhere_and_of_the_mean_length():
    numbers = Corruption.of_row(120, 0.15, 3.0)
    assert (numbers.noise_tokens, numbers.spans) == (18, 6)
    hidden, lengths = np.zeros(120), []
    for seed in range(800):
        source, target = numbers.apply(np.arange(100, 220), SENTINELS, 0, np.random.default_rng(seed))
        hidden[np.setdiff1d(np.arange(120), source - 100)] += 1
        lengths += np.diff(np.flatnonzero(np.isin(target, [*SENTINELS, 0]))).tolist()
    assert hidden[20:100] / 800 == pytest.approx(np.full(80, 0.15), abs=0.06)
    assert np.mean(lengths) - 1 == 3.0
    assert {1, 2, 3, 4, 5, 6} <= {length - 1 for length in lengths}


def corruption(sequence=64, **data):
    spec = objective_spec("seq2seq", sequence, **data)
    rows = library_rows(row_tokens(spec))
    return build_objective(spec, small_vocabulary(), ListSource(rows[20:], rows[:20]), CPU), rows


def test_a_batch_restores_its_rows_and_decodes_to_their_text():
    objective, rows = corruption()
    batch = objective.training(2, 5)
    for n in range(5):
        source = batch.inputs["input_ids"][n].numpy()
        target = batch.labels[n].numpy()
        target = target[target != IGNORED]
        text = restored(source[source != SPECIAL.pad], target, SENTINELS, SPECIAL.eos)
        assert text == rows[22 + n, :-1].tolist()
    tokenizer = small_vocabulary().tokenizer
    shown = tokenizer.decode(batch.labels[0][batch.labels[0] != IGNORED].tolist(), skip_special_tokens=False)
    assert shown.startswith("<extra_id_0>")
    assert shown.endswith("<|endoftext|>")
    assert tokenizer.decode(rows[22, :-1].tolist()) == tokenizer.decode(text_of(batch, 0))


def text_of(batch, n) -> list[int]:
    source, target = batch.inputs["input_ids"][n].numpy(), batch.labels[n].numpy()
    return restored(source[source != SPECIAL.pad], target[target != IGNORED], SENTINELS, SPECIAL.eos)


def test_all_the_text_is_used_once():
    _, rows = corruption()
    assert np.array_equal(rows[:-1, -1], rows[1:, 0])


def test_a_batch_is_a_function_of_its_positions():
    objective, rows = corruption()
    whole = objective.training(6, 4)
    parts = [corruption()[0].training(first, 2) for first in (8, 6)][::-1]
    assert torch.equal(whole.inputs["input_ids"], torch.cat([p.inputs["input_ids"] for p in parts]))
    assert torch.equal(whole.labels, torch.cat([p.labels for p in parts]))
    again = objective.training(6 + len(rows) - 20, 4)
    assert not torch.equal(whole.labels, again.labels)  # another epoch corrupts other spans
    assert torch.equal(objective.validation(0, 3).labels, objective.validation(0, 3).labels)


def test_the_decoder_reads_the_target_one_step_late():
    objective, _ = corruption()
    batch = objective.training(0, 3)
    model = build_model(resolve_config(objective_spec("seq2seq", 64), small_vocabulary()), SPECIAL, seed=1)
    assert torch.equal(batch.inputs["decoder_input_ids"], model.prepare_decoder_input_ids_from_labels(batch.labels))


@pytest.mark.parametrize("dynamic", [True, False])
def test_shapes_of_spans_never_change_and_targets_are_short(dynamic):
    objective, _ = corruption(64, dynamicPadding=dynamic)
    shapes = {
        (b.inputs["input_ids"].shape, b.labels.shape) for b in (objective.training(n, 4) for n in range(0, 40, 4))
    }
    assert shapes == {((4, 64), (4, 16))}


def test_too_few_sentinels_are_refused():
    with pytest.raises(DataError, match=r"has 57 corrupted spans.*has 16 sentinel.*sentinels of .* to 57 or more"):
        corruption(1024)


PAIRS = [(np.arange(30, 30 + a), np.arange(100, 100 + b)) for a, b in [(3, 10), (5, 20), (1, 2), (40, 90), (7, 7)]]


def pairs(task="commentToCode", sequence=32, **data):
    spec = objective_spec("seq2seq", sequence, {"task": task}, **data)
    assert objective_info(spec).reads_pairs(spec)
    return build_objective(spec, small_vocabulary(), ListPairSource(PAIRS), CPU)


@pytest.mark.parametrize("task", ["commentToCode", "codeToComment"])
def test_one_half_is_read_and_the_other_written(task):
    batch = pairs(task).training(0, 3)
    for n in range(3):
        comment, code = (np.append(part, SPECIAL.eos) for part in PAIRS[n])
        source, target = (comment, code) if task == "commentToCode" else (code, comment)
        read = batch.inputs["attention_mask"][n].bool()
        assert batch.inputs["input_ids"][n][read].tolist() == source.tolist()
        assert (batch.inputs["input_ids"][n][~read] == SPECIAL.pad).all()
        assert batch.labels[n][batch.labels[n] != IGNORED].tolist() == target.tolist()
    assert batch.targets == (batch.labels != IGNORED).sum()


@pytest.mark.parametrize(
    ("data", "lengths"),
    [
        ({"padToMultipleOf": 1}, (6, 21)),
        ({}, (8, 24)),
        ({"padToMultipleOf": 30}, (30, 30)),
        ({"padToMultipleOf": 64}, (32, 32)),
        ({"dynamicPadding": False}, (32, 32)),
    ],
)
def test_texts_are_padded_to_the_longest_of_the_batch(data, lengths):
    batch = pairs(**data).training(0, 3)
    assert (batch.inputs["input_ids"].shape[1], batch.labels.shape[1]) == lengths


def test_texts_that_are_too_long_lose_their_end_and_are_counted():
    objective = pairs()
    batch = objective.training(3, 1)
    assert objective.truncated == 2
    assert batch.labels[0].tolist() == [*range(100, 131), SPECIAL.eos]
    assert "attention_mask" not in batch.inputs  # nothing is padded
    objective.validation(4, 1)
    assert objective.truncated == 2


def tiny(task="commentToCode"):
    spec = objective_spec("seq2seq", 32, {"task": task})
    return build_model(replace(resolve_config(spec, small_vocabulary()), layers=2), SPECIAL, seed=1)


def test_padding_changes_no_loss():
    model = tiny().eval()
    alone = [pairs(padToMultipleOf=1).training(n, 1) for n in range(3)]
    together = pairs().training(0, 3)
    expected = sum(pairs().loss(LossModel.of(model), batch).item() for batch in alone)
    assert pairs().loss(LossModel.of(model), together).item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_what_the_model_itself_would_say():
    model = tiny().eval()
    batch = pairs().training(0, 3)
    inputs = {k: v for k, v in batch.inputs.items() if k != "decoder_input_ids"}
    mean = model(**inputs, labels=batch.labels).loss
    assert pairs().loss(LossModel.of(model), batch).item() / batch.targets == pytest.approx(mean.item(), rel=1e-5)
    assert pairs().bits_per_byte(1.0) is None


def test_workers_with_different_numbers_of_labels_have_the_gradient_of_one_batch():
    def gradient(*parts: tuple[int, int]) -> dict[str, torch.Tensor]:
        model = tiny()
        batches = [pairs().training(*part) for part in parts]
        for batch in batches:
            (pairs().loss(LossModel.of(model), batch) / sum(b.targets for b in batches)).backward()
        return {n: p.grad for n, p in model.named_parameters()}

    one, two = gradient((0, 5)), gradient((0, 1), (1, 4))
    for name, expected in one.items():
        assert torch.allclose(expected, two[name], atol=1e-6), name


def test_padding_of_its_own_is_needed():
    vocabulary = replace(small_vocabulary(), special=replace(SPECIAL, pad=SPECIAL.eos))
    with pytest.raises(DataError, match=r"pad_token, id 0, is another special token"):
        build_objective(
            objective_spec("seq2seq", 32, {"task": "commentToCode"}), vocabulary, ListPairSource(PAIRS), CPU
        )
