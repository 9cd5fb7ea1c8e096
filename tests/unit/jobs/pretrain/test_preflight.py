"""Everything that is refused before a worker starts."""

import shutil
from dataclasses import replace

import pytest

from hatchery_api.conditions import Reason
from hatchery_api.contract import ExitCode
from hatchery_jobs.pretrain import train
from hatchery_jobs.pretrain.data.token_store import TokenStore
from hatchery_jobs.pretrain.data.vocabulary import load_vocabulary
from hatchery_jobs.pretrain.preflight import check
from hatchery_jobs.runtime.errors import JobError


@pytest.fixture(scope="module")
def facts(shared_bench, inputs):
    context = shared_bench.context("train", inputs)
    tokens, tokenizer = context.input("tokens"), context.input("tokenizer")
    return shared_bench, inputs, TokenStore(tokens, 32), load_vocabulary(tokenizer)


def plan(context, store, vocabulary, workers):
    empty = context.scratch / "work"
    empty.mkdir(exist_ok=True)
    return check(context.job.spec, store, vocabulary, None, workers=workers, folder=empty)


@pytest.mark.parametrize(
    ("changes", "workers", "reason", "code", "words"),
    [
        ({"model": {"overrides": {"heads": 3}}}, 1, Reason.INVALID_SPEC, 64, "3 heads do not divide a width of 128"),
        ({"model": {"overrides": {"maxPositions": 16}}}, 1, Reason.SEQUENCE_TOO_LONG, 64, "sequenceLength is 32"),
        ({"batch": {"sequences": 4, "perDevice": 3}}, 1, Reason.INVALID_SPEC, 64, "next lower value that does is 2"),
        ({"batch": {"sequences": 4, "perDevice": 2}}, 3, Reason.INVALID_SPEC, 64, "at most 2 workers"),
        ({"batch": {"sequences": 600, "perDevice": 2}}, 1, Reason.NOT_ENOUGH_TEXT, 65, "one batch takes 600"),
    ],
)
def test_refused(facts, changes, workers, reason, code, words):
    bench, inputs, store, vocabulary = facts
    with pytest.raises(JobError, match=words) as e:
        plan(bench.context("train", inputs, **changes), store, vocabulary, workers)
    assert (e.value.reason, e.value.exit_code) == (reason, code)


def test_tokens_of_another_tokenizer_are_refused(facts):
    bench, inputs, store, vocabulary = facts
    other = replace(vocabulary, size=vocabulary.size + 1)
    with pytest.raises(JobError, match="different tokenizers") as e:
        plan(bench.context("train", inputs), store, other, 1)
    assert (e.value.reason, e.value.exit_code) == (Reason.VOCABULARY_MISMATCH, ExitCode.DATA_ERROR)


def test_what_fits_is_counted(facts):
    bench, inputs, store, vocabulary = facts
    found = plan(bench.context("train", inputs), store, vocabulary, 2)
    assert found.config.parameters > 30_000
    assert found.checkpoint_bytes == 12 * found.config.parameters
    assert found.epochs == pytest.approx(12 * 4 / store.sequences("train"))


def test_a_volume_without_room_for_the_checkpoints_is_refused(facts, monkeypatch):
    bench, inputs, store, vocabulary = facts
    usage = shutil.disk_usage(bench.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    with pytest.raises(JobError, match=r"4 checkpoints of [\d,]+ parameters take .*keepLast") as e:
        plan(bench.context("train", inputs), store, vocabulary, 1)
    assert (e.value.reason, e.value.exit_code) == (Reason.STORAGE_ERROR, ExitCode.RETRY)


def test_the_stage_checks_before_it_starts_anything(bench, inputs, monkeypatch):
    monkeypatch.setenv("HATCHERY_PROCESSES_PER_NODE", "64")
    monkeypatch.setattr("subprocess.Popen", None)
    with pytest.raises(JobError, match="64 workers"):
        train.run(bench.context("train", inputs))
