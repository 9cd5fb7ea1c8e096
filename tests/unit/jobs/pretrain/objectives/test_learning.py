"""Small models of all three kinds learn real text: better than knowing how often each token occurs."""

import numpy as np
import pytest
import torch
from tests.support.objective_feeds import SPECIAL, ListFeed, library_rows, objective_spec, small_vocabulary

from hatchery_jobs.pretrain.model import build_model
from hatchery_jobs.pretrain.objectives.batch import IGNORED, Objective
from hatchery_jobs.pretrain.objectives.build import build_objective
from hatchery_jobs.pretrain.objectives.lengths import row_tokens
from hatchery_jobs.pretrain.shape import resolve_shape


def unigram_entropy(objective: Objective, train: np.ndarray) -> float:
    """Mean surprise of the labels, in nats, to one who knows the frequencies of the training text."""
    labels = objective.validation(0, objective.validation_rows).labels
    labels = labels[labels != IGNORED].numpy()
    counts = np.bincount(train[:, :-1].flatten(), minlength=512) + 1.0
    text = labels[~np.isin(labels, sorted(SPECIAL.every))]  # sentinels and ends can be foretold
    return float(-np.log(counts[text] / counts.sum()).mean())


@torch.no_grad()
def measured(objective: Objective, model) -> float:
    batch = objective.validation(0, objective.validation_rows)
    model.eval()
    logits = model(**batch.inputs).logits.flatten(0, 1)
    labels = batch.labels.flatten().clone()
    labels[torch.isin(labels, torch.tensor(sorted(SPECIAL.every)))] = IGNORED
    model.train()
    return torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED).item()


@pytest.mark.parametrize(
    ("kind", "overrides", "steps", "rate"),
    [
        ("causal", {"layers": 2, "hiddenSize": 64, "heads": 2}, 100, 3e-3),
        ("masked", {"layers": 2, "hiddenSize": 64, "heads": 2}, 300, 3e-3),
        ("seq2seq", {"layers": 2, "hiddenSize": 64, "heads": 2}, 200, 1e-2),
    ],
)
def test_a_short_run_beats_the_frequencies_of_tokens(kind, overrides, steps, rate):
    spec = objective_spec(kind, 32)
    spec = spec.model_validate({**spec.wire(), "model": {**spec.model.wire(), "overrides": overrides}})
    rows = library_rows(row_tokens(spec))
    train, held_out = np.delete(rows, np.s_[::8], axis=0), rows[::8]
    objective = build_objective(spec, small_vocabulary(), ListFeed(train, held_out), torch.device("cpu"))
    model = build_model(resolve_shape(spec, small_vocabulary()), SPECIAL, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1, fused=True)
    first = measured(objective, model)
    for step in range(steps):
        batch = objective.training(step * 16, 16)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 10, (steps - step) / steps * 2)
        loss = objective.loss(model, batch) / batch.targets
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    last = measured(objective, model)
    print(kind, first, last, unigram_entropy(objective, train))
    assert first > np.log(512) - 0.2
    assert last < unigram_entropy(objective, train) - 0.1
