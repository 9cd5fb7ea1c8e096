"""The next token: labels, documents that do not see each other, and what a gradient is divided by."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.support.jobs.objective_sources import SPECIAL, ListSource, objective_spec, small_vocabulary

from hatchery_jobs.pretrain.model import ModelConfig
from hatchery_jobs.pretrain.objectives import IGNORED, build_objective
from hatchery_jobs.pretrain.training.fused_loss import LossModel
from hatchery_jobs.pretrain.training.model_factory import build_model

CPU = torch.device("cpu")
SHAPE = ModelConfig(
    architecture="gpt2",
    layers=2,
    heads=2,
    key_value_heads=2,
    head_width=16,
    width=32,
    feed_forward=128,
    positions=32,
    vocab=64,
    dropout=0.0,
)


def rows(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(21, 64, (count, 33))


def causal(feed, tokens_per_byte=None):
    return build_objective(objective_spec("causal"), small_vocabulary(), feed, CPU, tokens_per_byte)


def test_each_token_is_the_label_of_the_one_before():
    tokens = rows(6)
    batch = causal(ListSource(tokens, tokens[:2])).training(2, 3)
    assert torch.equal(batch.inputs["input_ids"], torch.from_numpy(tokens[2:5, :-1]))
    assert torch.equal(batch.labels, torch.from_numpy(tokens[2:5, 1:]))
    assert batch.targets == 3 * 32
    assert batch.inputs.keys() == {"input_ids"}


def test_what_is_not_learnt_has_no_label():
    tokens, learnt = rows(4), np.random.default_rng(2).random((4, 32)) < 0.7
    batch = causal(ListSource(tokens, tokens, is_target=learnt)).training(0, 4)
    assert torch.equal(batch.labels == IGNORED, torch.from_numpy(~learnt))
    assert torch.equal(batch.labels[learnt], torch.from_numpy(tokens[:, 1:][learnt]))
    assert batch.targets == learnt.sum()


def test_the_loss_is_the_sum_of_the_surprise_of_each_label():
    tokens, learnt = rows(3), np.random.default_rng(2).random((3, 32)) < 0.5
    objective = causal(ListSource(tokens, tokens, is_target=learnt))
    model = build_model(SHAPE, SPECIAL, seed=1)
    batch = objective.training(0, 3)
    surprise = -torch.log_softmax(model(input_ids=torch.from_numpy(tokens[:, :-1])).logits, dim=-1)
    expected = sum(surprise[b, t, tokens[b, t + 1]].item() for b in range(3) for t in range(32) if learnt[b, t])
    assert objective.loss(LossModel.of(model), batch).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("masked", [True, False])
def test_documents_of_a_row_do_not_see_each_other(family, masked):
    tokens = rows(2)
    other = tokens.copy()
    other[:, 3:12] = rows(2, seed=9)[:, 3:12]  # inside the first of two documents, of 16 tokens each
    positions = np.tile(np.arange(16), (2, 2)) if masked else None
    shape = replace(SHAPE, architecture=family, width=128, head_width=64, feed_forward=512)
    model = build_model(shape, SPECIAL, seed=1).eval()
    logits = []
    for given in (tokens, other):
        batch = causal(ListSource(given, given, positions=positions)).training(0, 2)
        logits.append(model(**batch.inputs, use_cache=False).logits[:, 16:])
    difference = (logits[0] - logits[1]).abs().max().item()
    assert difference <= 1e-6 if masked else difference > 0.1


def test_bits_per_byte_are_the_losses_of_all_tokens_over_all_bytes():
    objective = causal(ListSource(rows(2), rows(2)), tokens_per_byte=0.25)
    assert objective.bits_per_byte(4 * math.log(2)) == pytest.approx(1.0)
    assert causal(ListSource(rows(2), rows(2))).bits_per_byte(1.0) is None


def test_ragged_labels_of_two_workers_have_the_gradient_of_one_batch():
    tokens, learnt = rows(4), np.zeros((4, 32), dtype=bool)
    for row, count in enumerate((32, 3, 17, 1)):
        learnt[row, :count] = True
    objective = causal(ListSource(tokens, tokens, is_target=learnt))

    def gradient(*parts: tuple[int, int]) -> list[torch.Tensor]:
        model = build_model(SHAPE, SPECIAL, seed=1)
        batches = [objective.training(*part) for part in parts]
        total = sum(batch.targets for batch in batches)
        for batch in batches:
            (objective.loss(LossModel.of(model), batch) / total).backward()
        return [p.grad for p in model.parameters()]

    for one, two in zip(gradient((0, 4)), gradient((0, 2), (2, 2)), strict=True):
        assert torch.allclose(one, two, atol=1e-6)


def test_a_few_rows_are_learnt_by_heart():
    tokens = rows(8)
    objective = causal(ListSource(tokens, tokens))
    model = build_model(replace(SHAPE, width=64, head_width=32, feed_forward=256), SPECIAL, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    batch = objective.training(0, 8)
    for _ in range(200):
        loss = objective.loss(LossModel.of(model), batch) / batch.targets
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
