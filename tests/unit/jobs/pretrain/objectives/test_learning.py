"""Small models learn real text: better than knowing how often each label occurs."""

import numpy as np
import pytest
import torch
from tests.support.jobs.objective_sources import SPECIAL, ListSource, library_rows, objective_spec, small_vocabulary

from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.model import resolve_config
from hatchery_jobs.pretrain.objectives import IGNORED, Batch, build_objective, row_tokens
from hatchery_jobs.pretrain.training.fused_loss import LossModel
from hatchery_jobs.pretrain.training.model_factory import build_model

ROWS_OF_A_STEP = 16


def frequencies_loss(learnt: Batch, measured: Batch) -> float:
    """Mean surprise of the measured labels, in nats, to one who knows the frequencies of the learnt ones."""
    known, asked = (batch.labels[batch.labels != IGNORED].numpy() for batch in (learnt, measured))
    counts = np.bincount(known, minlength=small_vocabulary().size) + 1.0
    return float(-np.log(counts[asked] / counts.sum()).mean())


@pytest.mark.parametrize(
    ("kind", "settings", "width", "steps", "rate"),
    [("masked", {"probability": 0.3}, 64, 300, 3e-3), ("seq2seq", None, 32, 120, 1e-2)],
)
def test_a_short_run_beats_the_frequencies_of_tokens(kind, settings, width, steps, rate):
    spec = objective_spec(kind, 32, settings)
    sizes = {**spec.model.wire(), "overrides": {"layers": 2, "heads": 2, "hiddenSize": width}}
    spec = PretrainRunSpec.model_validate({**spec.wire(), "model": sizes})
    rows = library_rows(row_tokens(spec))
    train, held_out = np.delete(rows, np.s_[::8], axis=0), rows[::8]
    objective = build_objective(spec, small_vocabulary(), ListSource(train, held_out), torch.device("cpu"))
    model = build_model(resolve_config(spec, small_vocabulary()), SPECIAL, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1, fused=True)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 10, (steps - step) / steps * 2)
        batch = objective.training(step * ROWS_OF_A_STEP, ROWS_OF_A_STEP)
        loss = objective.loss(LossModel.of(model), batch) / batch.targets
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    measured = objective.validation(0, objective.validation_rows)
    with torch.no_grad():
        loss = objective.loss(LossModel.of(model.eval()), measured).item() / measured.targets
    assert loss < frequencies_loss(objective.training(0, len(train)), measured) - 0.05
