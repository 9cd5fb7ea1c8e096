import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hatchery_api.conditions import Reason
from hatchery_api.resources.evaluate import PerplexityTask
from hatchery_jobs.evaluate.model import LoadedModel
from hatchery_jobs.evaluate.tasks.base import TaskContext
from hatchery_jobs.evaluate.tasks.perplexity import exponential, run
from hatchery_jobs.readers.corpus_artifact import CorpusSplit, open_split
from hatchery_jobs.runtime.errors import DataError, Interrupted, SpecError

DOCUMENTS = ["def f(x):\n    return x\n" * 3, "naïve 漢字\n", "print('🎉')\n" * 5, "z"]


@pytest.fixture
def texts(tmp_path: Path) -> CorpusSplit:
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"text": DOCUMENTS}), tmp_path / "data/validation-00000-of-00001.parquet")
    return open_split(tmp_path, "validation")


def measured(
    loaded: LoadedModel, texts: CorpusSplit, watch: Any = lambda *_: None, **fields: Any
) -> dict[str, tuple[float, int]]:
    task = PerplexityTask.model_validate({"corpusRef": {"name": "c"}, "sequenceLength": 16, **fields})
    found = run(task, TaskContext("spec.tasks[2].perplexity", loaded, lambda _split: texts, watch))
    return {m.metric: (m.value, m.n) for m in found.measures}


def stream(loaded: LoadedModel) -> list[int]:
    return [i for text in DOCUMENTS for i in (*loaded.tokenizer(text)["input_ids"], loaded.end_id)]


def slow_losses(loaded: LoadedModel, length: int) -> list[float]:
    """-ln p of every predicted token, one forward pass each over nothing but the tokens before it."""
    ids = stream(loaded)
    losses = []
    for start in range(0, len(ids), length):
        block = ids[start : start + length]
        for end in range(1, len(block)):
            with torch.no_grad():
                logits = loaded.model(torch.tensor([block[:end]])).logits[0, -1].double()
            losses.append(float(logits.logsumexp(0) - logits[block[end]]))
    return losses


def test_a_uniform_model_has_the_size_of_the_vocabulary(loaded: LoadedModel, texts: CorpusSplit) -> None:
    for parameter in loaded.model.parameters():
        parameter.data.zero_()
    found = measured(loaded, texts)
    size = len(loaded.tokenizer)
    assert found["perplexity"][0] == pytest.approx(size, rel=1e-6)
    assert found["loss"][0] == pytest.approx(math.log(size), rel=1e-7)


@pytest.mark.parametrize("length", [16, 40, 96])
def test_every_predicted_token_counts_once(loaded: LoadedModel, texts: CorpusSplit, length: int) -> None:
    slow = slow_losses(loaded, length)
    found = measured(loaded, texts, sequenceLength=length)
    assert len(stream(loaded)) % length != 0
    assert found["loss"] == (pytest.approx(sum(slow) / len(slow), rel=1e-6), len(slow))
    assert found["perplexity"][0] == pytest.approx(math.exp(sum(slow) / len(slow)), rel=1e-5)


def test_bits_per_byte_relates_to_loss_by_tokens_and_bytes(loaded: LoadedModel, texts: CorpusSplit) -> None:
    found = measured(loaded, texts, sequenceLength=96)
    ids = stream(loaded)
    # Every end of a block of 96 tokens is inside ASCII text here, where a token's bytes are its characters.
    skipped = [loaded.tokenizer.decode([ids[start]]) for start in range(0, len(ids), 96)]
    assert all(text.isascii() for text in skipped)
    text_bytes = sum(len(text.encode()) for text in DOCUMENTS) - sum(map(len, skipped))
    loss, n = found["loss"]
    assert found["bits_per_byte"][0] == pytest.approx(loss * n / math.log(2) / text_bytes, rel=1e-9)


@pytest.mark.parametrize("size", [1, 3, 8, 1000])
def test_the_batch_does_not_change_the_result(loaded: LoadedModel, texts: CorpusSplit, size: int) -> None:
    one = measured(loaded, texts, batchSequences=1)
    assert measured(loaded, texts, batchSequences=size) == {
        name: (pytest.approx(value, rel=1e-6), n) for name, (value, n) in one.items()
    }


def test_the_default_length_is_all_the_model_can_see(loaded: LoadedModel, texts: CorpusSplit) -> None:
    assert measured(loaded, texts, sequenceLength=None) == measured(loaded, texts, sequenceLength=96)


def test_batches_end_where_asked(loaded: LoadedModel, texts: CorpusSplit) -> None:
    slow = slow_losses(loaded, 16)[:30]
    found = measured(loaded, texts, batchSequences=2, maxBatches=1)
    assert found["loss"] == (pytest.approx(sum(slow) / 30, rel=1e-6), 30)


def test_progress_reaches_all_documents(loaded: LoadedModel, texts: CorpusSplit) -> None:
    seen: list[tuple[int, int, str]] = []
    measured(loaded, texts, lambda *facts: seen.append(facts), batchSequences=2)
    assert seen[-1] == (4, 4, "documents")
    assert len(seen) > 2


def test_overflow_is_infinite(loaded: LoadedModel, texts: CorpusSplit) -> None:
    assert exponential(709.0) < math.inf == exponential(710.0)
    with torch.no_grad():
        loaded.model.transformer.ln_f.weight.mul_(1e6)
    found = measured(loaded, texts)
    assert found["perplexity"][0] == math.inf
    assert 710 < found["loss"][0] < math.inf


def test_a_broken_model_is_an_error(loaded: LoadedModel, texts: CorpusSplit) -> None:
    with torch.no_grad():
        loaded.model.transformer.ln_f.weight.fill_(math.nan)
    with pytest.raises(DataError, match=r"spec\.tasks\[2\]\.perplexity: the loss is NaN") as caught:
        measured(loaded, texts)
    assert caught.value.reason == Reason.NON_FINITE_LOSS


def test_longer_sequences_than_the_model_can_see_are_refused(loaded: LoadedModel, texts: CorpusSplit) -> None:
    with pytest.raises(SpecError, match=r"spec\.tasks\[2\]\.perplexity\.sequenceLength: 97 tokens.* of 96") as caught:
        measured(loaded, texts, sequenceLength=97)
    assert caught.value.reason == Reason.SEQUENCE_TOO_LONG


def test_a_model_without_positions_needs_a_length(loaded: LoadedModel, texts: CorpusSplit) -> None:
    endless = LoadedModel(loaded.model, loaded.tokenizer, 1, None)
    assert measured(endless, texts) == measured(loaded, texts)
    with pytest.raises(SpecError, match=r"sequenceLength: the model has no context length"):
        measured(endless, texts, sequenceLength=None)


def test_nothing_to_predict_is_an_error(loaded: LoadedModel, texts: CorpusSplit, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [""]}), tmp_path / "data/train-00000-of-00001.parquet")
    with pytest.raises(DataError, match="no token to predict") as caught:
        measured(loaded, open_split(tmp_path, "train"))
    assert caught.value.reason == Reason.NOT_ENOUGH_TEXT


def test_the_watcher_can_end_it(loaded: LoadedModel, texts: CorpusSplit) -> None:
    def watch(*_: object) -> None:
        raise Interrupted("now")

    with pytest.raises(Interrupted, match="now"):
        measured(loaded, texts, watch)
