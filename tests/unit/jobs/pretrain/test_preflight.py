"""Everything that is refused before a worker starts."""

import pytest

from hatchery_api.conditions import Reason
from hatchery_api.contract import ExitCode
from hatchery_jobs.errors import JobError
from hatchery_jobs.pretrain import train
from hatchery_jobs.pretrain.data import TokenStore
from hatchery_jobs.pretrain.preflight import check
from hatchery_jobs.pretrain.shape import PRESETS, Shape
from hatchery_jobs.pretrain.vocabulary import load_vocabulary


@pytest.fixture(scope="module")
def facts(shared_bench, inputs):
    context = shared_bench.context("train", inputs)
    tokens, tokenizer = context.input("tokens"), context.input("tokenizer")
    return shared_bench, inputs, TokenStore(tokens, 32), load_vocabulary(tokenizer)


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
        check(bench.context("train", inputs, **changes).job.spec, store, vocabulary, workers)
    assert (e.value.reason, e.value.exit_code) == (reason, code)


def test_tokens_of_another_tokenizer_are_refused(facts):
    bench, inputs, store, vocabulary = facts
    other = type(vocabulary)(vocabulary.tokenizer, vocabulary.size + 1, vocabulary.eos_id)
    with pytest.raises(JobError, match="different tokenizers") as e:
        check(bench.context("train", inputs).job.spec, store, other, 1)
    assert (e.value.reason, e.value.exit_code) == (Reason.VOCABULARY_MISMATCH, ExitCode.DATA_ERROR)


def test_what_fits_passes(facts):
    bench, inputs, store, vocabulary = facts
    assert check(bench.context("train", inputs).job.spec, store, vocabulary, 2).parameters > 30_000


def test_the_stage_checks_before_it_starts_anything(bench, inputs, monkeypatch):
    monkeypatch.setenv("HATCHERY_PROCESSES_PER_NODE", "64")
    monkeypatch.setattr("subprocess.Popen", None)
    with pytest.raises(JobError, match="64 workers"):
        train.run(bench.context("train", inputs))


def test_parameters_of_the_presets_are_the_known_ones():
    counts = {
        name: Shape(layers, heads, width, 1024, 50_257, 0.0).parameters
        for name, (layers, heads, width) in PRESETS.items()
        if name != "tiny"
    }
    assert counts == {"small": 124_439_808, "medium": 354_823_168, "large": 774_030_080, "xl": 1_557_611_200}
