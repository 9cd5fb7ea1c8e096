"""Weights to go on from: another run's, or a commit on the Hub."""

from pathlib import Path

import pytest
from huggingface_hub import constants
from tests.support.hub_server import HubServer

from hatchery_api.contract import HubTarget, JobInput, Output
from hatchery_api.placement import Hub
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.hub.push import push_folder
from hatchery_jobs.pretrain.model.weights import find_weights
from hatchery_jobs.runtime.context import Context
from hatchery_jobs.runtime.errors import RetryableError, SpecError
from hatchery_jobs.runtime.progress import ProgressReporter

pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")


def context(scratch: Path, source: dict | None, inputs=(), endpoint: str = "http://127.0.0.1:1"):
    spec = {
        "corpora": [{"corpusRef": {"name": "x"}}],
        "tokenizerRef": {"name": "x"},
        "model": {"from": source} if source else {},
        "schedule": {"steps": 2},
    }
    job = JobInput[PretrainRunSpec](
        kind="PretrainRun",
        namespace="lab",
        name="run",
        uid="1",
        stage="train",
        attempt=1,
        spec=PretrainRunSpec.model_validate(spec),
        inputs=list(inputs),
        output=Output(root=str(scratch / "runs")),
        hub=HubTarget(endpoint=endpoint),
    )
    return Context(job=job, progress=ProgressReporter("train"), scratch=scratch)


def saved(folder: Path) -> Path:
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", "modeling.py", "tokenizer.json"):
        (folder / name).write_text(name)
    return folder


def test_a_fresh_model_needs_none(tmp_path):
    assert find_weights(context(tmp_path, None)) is None


def test_another_runs_weights_are_its_artifact(tmp_path, bench):
    record = bench.artifact("model", "base", lambda folder: (folder / "config.json").write_text("{}"))
    one = context(tmp_path, {"pretrainRef": {"name": "base"}}, [record])
    weights = find_weights(one)
    assert (weights.digest, weights.sources) == (record.digest, {})  # an input is in the key of the artifact anyway
    assert (weights.folder(one) / "config.json").read_text() == "{}"


def test_weights_on_the_hub_are_one_commit_without_code_or_pickles(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with HubServer(tmp_path / "hub") as hub:
        pushed = push_folder(saved(tmp_path / "model"), Hub(repo="org/m"), "model", "first", endpoint=hub.url)
        one = context(tmp_path / "scratch", {"hub": {"repo": "org/m"}}, endpoint=hub.url)
        weights = find_weights(one)
        assert weights.sources == {"model": pushed.revision}
        folder = weights.folder(one)
        assert {p.name for p in folder.glob("*") if p.is_file()} == {"config.json", "model.safetensors"}
        own = context(tmp_path / "scratch", {"hub": {"repo": "org/m", "endpoint": hub.url}})
        assert find_weights(own).digest == pushed.revision  # the spec's own server goes before the operator's
        with pytest.raises(SpecError, match=r"spec\.model\.from\.hub: org/m at gone"):
            find_weights(context(tmp_path, {"hub": {"repo": "org/m", "revision": "gone"}}, endpoint=hub.url))


def test_a_hub_that_is_away_is_asked_again_later(tmp_path):
    with pytest.raises(RetryableError, match=r"spec\.model\.from\.hub: org/m at main.*retrying"):
        find_weights(context(tmp_path, {"hub": {"repo": "org/m"}}))
