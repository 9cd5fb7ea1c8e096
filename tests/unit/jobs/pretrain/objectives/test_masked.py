"""Hidden tokens and pairs of segments, against BERT's rules."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from tests.support.jobs.objective_sources import SPECIAL, ListSource, library_rows, objective_spec, small_vocabulary
from tokenizers import Tokenizer, decoders, models

from hatchery_jobs.pretrain.data import SpecialIds, Vocabulary
from hatchery_jobs.pretrain.model import resolve_config
from hatchery_jobs.pretrain.objectives import IGNORED, build_objective, row_tokens
from hatchery_jobs.pretrain.objectives.masked import WordBoundaries
from hatchery_jobs.pretrain.training.fused_loss import LossModel
from hatchery_jobs.pretrain.training.model_factory import build_model
from hatchery_jobs.runtime.errors import DataError

CPU = torch.device("cpu")


def masked(settings=None, sequence=64, rows=None, vocabulary=None):
    spec = objective_spec("masked", sequence, settings)
    rows = library_rows(row_tokens(spec)) if rows is None else rows
    return build_objective(spec, vocabulary or small_vocabulary(), ListSource(rows[20:], rows[:20]), CPU), rows


def original(batch) -> np.ndarray:
    return torch.where(batch.labels == IGNORED, batch.inputs["input_ids"], batch.labels).numpy()


def test_a_row_is_its_text_between_two_special_tokens():
    objective, rows = masked()
    batch = objective.training(3, 5)
    text = original(batch)
    assert text.shape == (5, 64)
    assert (text[:, 0] == SPECIAL.cls).all()
    assert (text[:, -1] == SPECIAL.sep).all()
    assert np.array_equal(text[:, 1:-1], rows[23:28, :-1])


def test_all_the_text_is_used_once():
    """The row after ends where this one begins: nothing between them is left out."""
    _, rows = masked()
    assert np.array_equal(rows[:-1, -1], rows[1:, 0])


@pytest.mark.parametrize("probability", [0.15, 0.4])
def test_labels_are_the_asked_share_and_become_mask_random_and_themselves(probability):
    objective, _ = masked({"probability": probability})
    batch = objective.training(0, 400)
    tokens, labels = batch.inputs["input_ids"].numpy(), batch.labels.numpy()
    chosen = labels != IGNORED
    assert batch.targets == chosen.sum() == 400 * objective.nominal_targets
    assert objective.nominal_targets == round(probability * 62)
    assert not chosen[:, [0, -1]].any()
    shares = [
        (tokens[chosen] == SPECIAL.mask).mean(),
        ((tokens != labels) & (tokens != SPECIAL.mask))[chosen].mean(),
        (tokens == labels)[chosen].mean(),
    ]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.015)
    at_random = tokens[chosen & (tokens != SPECIAL.mask) & (tokens != labels)]
    assert not np.isin(at_random, sorted(SPECIAL.every)).any()
    assert len(set(at_random)) > 100
    places = chosen[:, 1:-1].mean(axis=0)
    assert places == pytest.approx(np.full(62, chosen.sum() / 400 / 62), abs=0.12)


def test_special_tokens_in_the_text_are_never_chosen():
    rows = library_rows(62).copy()
    rows[:, 5:40:2] = SPECIAL.eos
    objective, _ = masked(rows=rows)
    batch = objective.training(0, 50)
    assert not (batch.labels == SPECIAL.eos).any()
    assert (batch.inputs["input_ids"][:, 6:41:2] == SPECIAL.eos).all()
    assert (batch.labels != IGNORED).sum(dim=1).eq(round(0.15 * (62 - 18))).all()


def test_a_row_without_text_has_no_label():
    objective, _ = masked(rows=np.full((30, 63), SPECIAL.eos))
    assert objective.training(0, 2).targets == 0


@pytest.mark.parametrize("settings", [{}, {"wholeWord": True}, {"nextSentence": True}])
def test_a_batch_is_a_function_of_its_positions(settings):
    objective, _ = masked(settings)
    whole = objective.training(6, 6)
    masked(settings)[0].training(100, 3)
    parts = [masked(settings)[0].training(first, 2) for first in (10, 8, 6)][::-1]
    assert torch.equal(whole.inputs["input_ids"], torch.cat([p.inputs["input_ids"] for p in parts]))
    assert torch.equal(whole.labels, torch.cat([p.labels for p in parts]))
    if settings.get("nextSentence"):
        assert torch.equal(whole.next_sentence, torch.cat([p.next_sentence for p in parts]))
        assert torch.equal(whole.inputs["token_type_ids"], torch.cat([p.inputs["token_type_ids"] for p in parts]))


def test_another_epoch_hides_other_tokens_and_validation_always_the_same():
    objective, rows = masked()
    one, two = objective.training(0, 4), objective.training(len(rows) - 20, 4)
    assert np.array_equal(original(one), original(two))
    assert not torch.equal(one.labels, two.labels)
    assert torch.equal(objective.validation(0, 4).labels, objective.validation(0, 4).labels)
    assert objective.validation_rows == 20


def test_whole_words_are_chosen_or_left():
    objective, _ = masked({"wholeWord": True, "probability": 0.3})
    batch = objective.training(0, 200)
    words = WordBoundaries.of(small_vocabulary())
    text, chosen = original(batch), (batch.labels != IGNORED).numpy()
    longer = 0
    for row, hidden in zip(text, chosen, strict=True):
        starts = np.flatnonzero(words.begins(row))
        for start, end in zip(starts, [*starts[1:], len(row)], strict=True):
            assert hidden[start:end].all() or not hidden[start:end].any()
            longer += hidden[start:end].all() and end - start > 1
    assert longer > 500
    assert (chosen.sum(axis=1) <= objective.nominal_targets).all()
    assert chosen.sum() / 200 > objective.nominal_targets * 0.98


def word_starts(texts: list[str], decoder) -> list[bool]:
    tokenizer = Tokenizer(models.WordLevel({text: n for n, text in enumerate(texts)}, unk_token=texts[0]))
    tokenizer.decoder = decoder
    vocabulary = Vocabulary(tokenizer, len(texts), 0, SpecialIds(eos=0, every=frozenset({0})))
    return WordBoundaries.of(vocabulary).begins(np.arange(len(texts))).tolist()


@pytest.mark.parametrize(
    ("texts", "decoder", "starts"),
    [
        (["[SEP]", "un", "##believ", "##able", "(", "x"], decoders.WordPiece(), [1, 1, 0, 0, 1, 1]),
        (["<e>", "def", "Ġcom", "pute", "_", "area", "(", "self", "Ċ", "ĠĠ", "x"], decoders.ByteLevel(), [1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1]),
        (["<e>", "caf", "Ã", "©", "Ġx"], decoders.ByteLevel(), [1, 1, 0, 0, 1]),
        (["<e>", "▁un", "believ", "able", "▁is", "!"], decoders.Metaspace(), [1, 1, 0, 0, 1, 1]),
    ],
    ids=["wordpiece", "bytes", "part of a character", "sentencepiece"],
)  # fmt: skip
def test_where_words_begin(texts, decoder, starts):
    assert word_starts(texts, decoder) == [bool(n) for n in starts]


def segments(row: np.ndarray, types: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    second = int(types.argmax())
    assert row[0] == SPECIAL.cls
    assert row[second - 1] == row[-1] == SPECIAL.sep
    assert types.tolist() == [0] * second + [1] * (len(row) - second)
    return row[1 : second - 1], row[second:-1]


@pytest.mark.parametrize("split", ["training", "validation"])
def test_half_of_the_segments_follow_and_half_are_from_elsewhere(split):
    objective, rows = masked({"nextSentence": True})
    start, count = (20, 200) if split == "training" else (0, 20)
    batch = getattr(objective, split)(0, count)
    follows = batch.next_sentence.numpy() == 0
    assert follows.reshape(-1, 2).sum(axis=1).tolist() == [1] * (count // 2)
    text, types = original(batch), batch.inputs["token_type_ids"].numpy()
    foreign = Counter()
    for n in range(count):
        own = rows[start + n % (len(rows) - 20), :-1]
        first, second = segments(text[n], types[n])
        assert len(first) + len(second) == 61
        assert np.array_equal(first, own[: len(first)])
        assert np.array_equal(second, own[len(first) :]) == follows[n]
        if not follows[n]:
            pool = rows[20:] if split == "training" else rows[:20]
            [*matches] = [k for k in range(len(pool)) if np.array_equal(pool[k, len(first) : -1], second)]
            assert matches
            foreign[matches[0]] += 1
    assert len(foreign) > count / 4  # drawn from everywhere
    if split == "training":
        assert 0.35 < follows[::2].mean() < 0.65  # which of two it is, chance decides


def test_segments_are_cut_where_a_document_goes_on():
    rows = library_rows(61).copy()
    rows[:, 15:45:2] = SPECIAL.eos
    objective, _ = masked({"nextSentence": True}, rows=rows)
    batch = objective.training(0, 60)
    for text, types in zip(original(batch), batch.inputs["token_type_ids"].numpy(), strict=True):
        first, _ = segments(text, types)
        assert first[-1] != SPECIAL.eos
        assert 15 <= len(first) <= 46


def test_a_single_row_has_no_foreign_segment():
    row = library_rows(61)[:1]
    objective, _ = masked({"nextSentence": True}, rows=np.repeat(row, 30, axis=0))
    with pytest.raises(DataError, match="train split has only one distinct sequence"):
        objective.training(0, 2)


@pytest.mark.parametrize("role", ["mask", "cls", "sep", "pad"])
def test_a_missing_special_token_is_named_with_its_field(role):
    vocabulary = replace(small_vocabulary(), special=replace(SPECIAL, **{role: None}))
    with pytest.raises(DataError, match=rf"no {role}_token.*spec\.specialTokens\.{role} of the TokenizerBuild"):
        masked(vocabulary=vocabulary)


def test_both_losses_have_the_same_weight():
    objective, _ = masked({"nextSentence": True})
    shape = resolve_config(objective_spec("masked", 64, {"nextSentence": True}), small_vocabulary())
    model = build_model(shape, SPECIAL, seed=1).eval()
    batch = objective.training(0, 6)
    output = model(**batch.inputs)
    hidden = F.cross_entropy(output.prediction_logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED)
    follows = F.cross_entropy(output.seq_relationship_logits, batch.next_sentence)
    assert objective.loss(LossModel.of(model), batch).item() / batch.targets == pytest.approx(
        (hidden + follows).item(), rel=1e-5
    )
    assert objective.bits_per_byte(1.0) is None


@pytest.mark.parametrize("settings", [{"wholeWord": True}, {"nextSentence": True}])
def test_workers_with_different_numbers_of_labels_have_the_gradient_of_one_batch(settings):
    objective, _ = masked(settings, sequence=32)
    shape = replace(
        resolve_config(objective_spec("masked", 32, settings), small_vocabulary()),
        width=32,
        head_width=16,
        feed_forward=64,
    )

    def gradient(*parts: tuple[int, int]) -> dict[str, torch.Tensor]:
        model = build_model(shape, SPECIAL, seed=1)
        batches = [objective.training(*part) for part in parts]
        for batch in batches:
            (objective.loss(LossModel.of(model), batch) / sum(b.targets for b in batches)).backward()
        return {n: p.grad for n, p in model.named_parameters()}

    one, two = gradient((0, 8)), gradient((0, 2), (2, 6))
    for name, expected in one.items():
        assert torch.allclose(expected, two[name], atol=1e-6), name
