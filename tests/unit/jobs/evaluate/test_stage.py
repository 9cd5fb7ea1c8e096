import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import load_dataset
from huggingface_hub import constants
from tests.support.hub_server import HubServer

from hatchery_api.conditions import Reason
from hatchery_api.placement import Hub
from hatchery_api.resources.evaluate import EvalResult
from hatchery_jobs.evaluate.output import short_result
from hatchery_jobs.evaluate.stage import run
from hatchery_jobs.evaluate.tasks.base import Measure, TaskResult
from hatchery_jobs.hub.push import push_folder
from hatchery_jobs.runtime.errors import DataError, Interrupted, SpecError

pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")

LOSS = {"name": "held-out", "perplexity": {"corpusRef": {"name": "c", "split": "validation"}, "sequenceLength": 32}}
WRITE = {"name": "code", "completion": {"maxLength": 96, "numCompletions": 2}}


def test_the_folder_holds_all_that_was_found(make: Callable[..., Any]) -> None:
    context = make([LOSS, WRITE])
    outcome = run(context)
    found = json.loads((outcome.folder / "results.json").read_text())
    assert found["results"]["held-out"].keys() == {"perplexity,none", "loss,none", "bits_per_byte,none"}
    assert found["n-samples"]["held-out"]["perplexity"] > 100
    assert found["definitions"]["held-out"]["sequence_length"] == 32
    assert found["definitions"]["held-out"]["log_base"] == "e"
    assert found["definitions"]["code"]["generation"]["seed"] == 1
    assert found["configs"]["code"]["completion"]["temperature"] == 0.4
    assert found["config"]["model_sha"] == context.job.input("model").digest
    assert found["versions"].keys() == {"torch", "transformers", "tokenizers", "hatchery"}
    rows = [json.loads(line) for line in (outcome.folder / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == 10
    assert {"task", "prompt", "raw", "completion", "tokens", "stop_reason"} <= rows[0].keys()


def test_the_status_gets_numbers_as_text_and_a_few_continuations(make: Callable[..., Any]) -> None:
    outcome = run(make([LOSS, WRITE]))
    numbers = {(m.task, m.metric): m.value for m in outcome.result.results}
    found = json.loads((outcome.folder / "results.json").read_text())["results"]
    assert float(numbers["held-out", "perplexity"]) == found["held-out"]["perplexity,none"]
    assert [sample.task for sample in outcome.result.samples] == ["code"] * 5
    assert all(len(s.prompt) <= 80 and len(s.completion) <= 160 for s in outcome.result.samples)
    assert EvalResult.model_validate_json((outcome.folder / "result.json").read_bytes()) == outcome.result


def test_the_same_run_again_is_taken_from_its_artifact(make: Callable[..., Any]) -> None:
    context = make([LOSS, WRITE])
    first, second = run(context), run(context)
    assert (first.cached, second.cached) == (False, True)
    assert (first.artifact, first.result) == (second.artifact, second.result)


def test_equal_runs_write_equal_bytes(make: Callable[..., Any], tmp_path: Path) -> None:
    context = make([LOSS, WRITE])
    first = run(context)
    contents = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    first.folder.rename(tmp_path / "away")
    assert {path.name: path.read_bytes() for path in run(context).folder.iterdir()} == contents


def test_infinity_is_text(make: Callable[..., Any], loaded: Any, model_folder: Path) -> None:
    with torch.no_grad():
        loaded.model.transformer.ln_f.weight.mul_(1e6)
    loaded.model.save_pretrained(model_folder)
    outcome = run(make([LOSS]))
    assert json.loads((outcome.folder / "results.json").read_text())["results"]["held-out"]["perplexity,none"] == "inf"
    assert outcome.result.results[0].value == "inf"
    assert (outcome.folder / "samples.jsonl").read_text() == ""


def test_the_card_says_what_and_how(make: Callable[..., Any], tmp_path: Path) -> None:
    outcome = run(make([LOSS, WRITE]))
    card = (outcome.folder / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["configs"][0]["data_files"] == "samples.jsonl"
    assert "| held-out | perplexity |" in card
    assert "perplexity: exp(loss)" in card
    assert "Compute the area of a rectangle" in card
    rows = load_dataset(str(outcome.folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 10


def test_a_model_with_too_few_embeddings_is_refused(make: Callable[..., Any], loaded: Any, model_folder: Path) -> None:
    loaded.tokenizer.save_pretrained(model_folder)
    loaded.model.resize_token_embeddings(300)
    loaded.model.save_pretrained(model_folder)
    with pytest.raises(DataError, match=r"the tokenizer has 320 tokens, the model has embeddings for 300") as caught:
        run(make([LOSS]))
    assert caught.value.reason == Reason.VOCABULARY_MISMATCH


def test_files_that_are_no_model_are_refused(make: Callable[..., Any], model_folder: Path) -> None:
    (model_folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"my-model: its files cannot be loaded as a causal language model") as caught:
        run(make([LOSS]))
    assert caught.value.reason == Reason.UNREADABLE_INPUT


def test_the_task_of_an_error_is_named(make: Callable[..., Any]) -> None:
    wrong = {"name": "long", "perplexity": {**LOSS["perplexity"], "sequenceLength": 200}}
    with pytest.raises(SpecError, match=r"spec\.tasks\[1\]\.perplexity\.sequenceLength: 200"):
        run(make([LOSS, wrong]))


def test_a_pod_that_is_asked_to_end_ends(make: Callable[..., Any]) -> None:
    context = make([LOSS])
    context.stop.set()
    with pytest.raises(Interrupted, match="held-out"):
        run(context)


def test_a_model_on_the_hub_is_its_commit(
    make: Callable[..., Any], model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    local = run(make([LOSS]))
    (model_folder / "pickled.bin").write_bytes(b"never read")
    with HubServer(tmp_path / "hub") as hub:
        pushed = push_folder(model_folder, Hub(repo="org/tiny"), "model", "first", endpoint=hub.url)
        remote = run(make([LOSS], model={"hub": {"repo": "org/tiny"}}, endpoint=hub.url))
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        with pytest.raises(SpecError, match=r"spec\.model\.hub: org/tiny at main on .*the Hub answers 401") as refused:
            run(make([LOSS], model={"hub": {"repo": "org/tiny"}}, endpoint=hub.url))
    assert remote.result == local.result
    assert json.loads((remote.folder / "results.json").read_text())["config"]["model_sha"] == pushed.revision
    assert not (tmp_path / "scratch" / "model" / "pickled.bin").exists()
    assert refused.value.reason == Reason.HUB_UNAUTHORIZED


def test_every_task_keeps_its_first_number_when_there_are_too_many() -> None:
    results = {
        f"t{i}": TaskResult([Measure("first", i, 1), Measure("second", i, 1), Measure("third", i, 1)], {})
        for i in range(32)
    }
    kept = short_result(results).results
    assert len(kept) == 64
    assert [measure.task for measure in kept if measure.metric == "first"] == list(results)
