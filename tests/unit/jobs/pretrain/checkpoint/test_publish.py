"""Checkpoints reach the Hub, even after an outage, and no failure of the Hub reaches training."""

import json
import shutil
import threading
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

import torch
from huggingface_hub import HfApi
from tests.support.jobs.hub_client import served
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from hatchery_api.conditions import Reason
from hatchery_api.contract import HubTarget, JobInput, Output
from hatchery_api.resources.pretrain import HubRevisionSource, PretrainRunSpec
from hatchery_jobs.hub.push import push_folder, push_once
from hatchery_jobs.pretrain.checkpoint import publish as module
from hatchery_jobs.pretrain.checkpoint.publish import (
    FIRST_WAIT_SECONDS,
    MAX_WAIT_SECONDS,
    Publisher,
    backoff_seconds,
    pushes_checkpoints,
    tag_of,
)
from hatchery_jobs.pretrain.checkpoint.resume import fetch_checkpoint
from hatchery_jobs.pretrain.checkpoint.snapshot import TrainingSnapshot, take_snapshot
from hatchery_jobs.pretrain.checkpoint.store import Checkpoints
from hatchery_jobs.pretrain.state import RunState
from hatchery_jobs.runtime.errors import RetryableError

pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")
PATIENCE_SECONDS = 60
"""After this a test that hangs fails."""
SPEC = {
    "corpora": [{"corpusRef": {"name": "texts"}}],
    "tokenizerRef": {"name": "words"},
    "schedule": {"steps": 12},
    "hub": {"repo": "lab/model"},
}


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT_SECONDS", 0.001)
    with served(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture
def api(server):
    return HfApi(endpoint=server.url, token="writer")


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "run" / "checkpoints", 1)


@pytest.fixture
def start(server, tmp_path, checkpoints):
    """Starts publishers; they are ended after the test."""
    started, told = [], []
    model_files = tmp_path / "run"
    model_files.mkdir()
    (model_files / "config.json").write_text("{}")
    (model_files / "tokenizer.json").write_text("{}")
    (model_files / "metrics.jsonl").write_text("not of the model")

    def begin(push=push_once, **hub):
        spec = PretrainRunSpec.model_validate({**SPEC, "hub": {**SPEC["hub"], **hub}})
        job = JobInput[PretrainRunSpec](
            kind="PretrainRun", namespace="lab", name="run", uid="1", stage="train", attempt=1, spec=spec,
            output=Output(root=str(tmp_path)), hub=HubTarget(endpoint=server.url),
        )  # fmt: skip
        started.append(
            Publisher(job, model_files, checkpoints.folder / ".queue", push, lambda *news: told.append(news))
        )
        return started[-1]

    begin.told = told
    yield begin
    for one in started:
        one.finish(0)
        one._thread.join(PATIENCE_SECONDS)


def save(checkpoints, step, value=None):
    value = float(step if value is None else value)
    snapshot = TrainingSnapshot(
        {"weight": torch.full((200,), value)}, {"state": {"weight": {"m": torch.full((200,), -value)}}}
    )
    state = RunState(step=step)
    return state, checkpoints.save(state, snapshot)


def until(publisher, predicate):
    """Waits for a change that the publisher tells about."""
    with publisher._wake:
        assert publisher._wake.wait_for(predicate, PATIENCE_SECONDS)


def titles(api, revision="main"):
    return [commit.title for commit in api.list_repo_commits("lab/model", revision=revision)]


def tags(api):
    return {ref.name: ref.target_commit for ref in api.list_repo_refs("lab/model").tags}


def events(capfd):
    return [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]


class Hub:
    """A push that waits to be let through, and notes what it is asked for."""

    def __init__(self):
        self.reached, self.open, self.seen = threading.Semaphore(0), threading.Semaphore(0), []
        self.errors = []

    def __call__(self, folder, hub, repo_type, message, *, tag, endpoint):
        self.seen.append(tag)
        self.reached.release()
        assert self.open.acquire(timeout=PATIENCE_SECONDS)
        if self.errors:
            raise self.errors.pop()
        return type("Revision", (), {"revision": tag})


def test_each_checkpoint_is_a_commit_with_a_tag_and_its_state_is_beside_it(start, api, checkpoints):
    publisher = start()
    for step in (5, 10):
        publisher.offer(*save(checkpoints, step))
        until(publisher, lambda: publisher.published.step == step and not publisher._is_behind)  # noqa: B023
    assert titles(api) == ["step 10", "step 5", "initial commit"]
    assert titles(api, "main-state")[:2] == ["step 10", "step 5"]
    found = tags(api)
    assert found.keys() == {"step-5", "step-5-state", "step-10", "step-10-state"}
    assert found["step-10"] == api.model_info("lab/model").sha == publisher.published.revision.revision
    model = {".gitattributes", "model.safetensors", "config.json", "tokenizer.json"}
    assert set(api.list_repo_files("lab/model")) == model
    state = {".gitattributes", "optimizer.pt", "manifest.json"}
    assert set(api.list_repo_files("lab/model", revision="main-state")) == state
    assert publisher.finish(PATIENCE_SECONDS)
    assert start.told == [(5, None), (10, None)]


def test_what_is_pushed_is_a_model_and_a_run_can_go_on_from_it(start, server, checkpoints, tmp_path):
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    )
    publisher = start()
    model.config.save_pretrained(tmp_path / "run")
    state = RunState(step=3)
    publisher.offer(state, checkpoints.save(state, take_snapshot(model, torch.optim.AdamW(model.parameters()))))
    assert publisher.finish(PATIENCE_SECONDS)
    api = HfApi(endpoint=server.url, token="writer")
    folder = api.snapshot_download("lab/model", revision="step-3", local_dir=tmp_path / "pulled")
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(loaded.transformer.wte.weight, model.transformer.wte.weight)
    other = Checkpoints(tmp_path / "other", 1)
    fetch_checkpoint(HubRevisionSource(repo="lab/model"), other, server.url)
    assert other.newest() == state
    assert torch.equal(other.load(3).weights["transformer.wte.weight"], model.transformer.wte.weight)


def test_a_checkpoint_may_be_removed_while_it_waits(start, api, checkpoints, tmp_path):
    hub = Hub()
    publisher = start(lambda *a, **k: (hub(*a, **k), push_once(*a, **k))[1])
    state, folder = save(checkpoints, 5)
    publisher.offer(state, folder)
    assert hub.reached.acquire(timeout=PATIENCE_SECONDS)
    expected = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    hub.open.release(2)
    assert publisher.finish(PATIENCE_SECONDS)
    for name, tag in (("model.safetensors", "step-5"), ("optimizer.pt", "step-5-state")):
        copy = api.hf_hub_download("lab/model", name, revision=tag, local_dir=tmp_path / "pulled")
        assert Path(copy).read_bytes() == expected[name]


def test_the_same_content_makes_no_new_commit(start, api, checkpoints, server):
    offered = save(checkpoints, 5)
    first = start()
    first.offer(*offered)
    assert first.finish(PATIENCE_SECONDS)
    before = tags(api)
    again = start()  # as after a restart
    again.offer(*offered)
    assert again.finish(PATIENCE_SECONDS)
    assert titles(api) == ["step 5", "initial commit"]
    assert tags(api) == before
    assert again.published.revision == first.published.revision


def test_a_course_that_was_left_gives_its_tag_to_the_new_one(start, api, checkpoints):
    publisher = start()
    publisher.offer(*save(checkpoints, 5, value=1))
    until(publisher, lambda: publisher.published.step == 5 and not publisher._is_behind)
    first = tags(api)["step-5"]
    publisher.offer(*save(checkpoints, 5, value=2))
    assert publisher.finish(PATIENCE_SECONDS)
    assert tags(api)["step-5"] == api.model_info("lab/model").sha != first


def test_another_branch_has_tags_of_its_own(start, api, checkpoints):
    publisher = start(revision="b")
    publisher.offer(*save(checkpoints, 5))
    assert publisher.finish(PATIENCE_SECONDS)
    assert tags(api).keys() == {"b-step-5", "b-step-5-state"}
    assert titles(api) == ["initial commit"]
    assert {ref.name for ref in api.list_repo_refs("lab/model").branches} == {"main", "b", "b-state"}


def test_an_outage_is_caught_up_with_the_newest_checkpoint_alone(start, api, checkpoints, server, capfd):
    publisher = start()
    server.fail("/api/", times=None, status=503)
    for step in (5, 10, 15):
        publisher.offer(*save(checkpoints, step))  # training goes on
        until(publisher, lambda: publisher._in_flight is None and publisher._waiting.step == step)  # noqa: B023
    assert "503" in publisher.published.problem
    assert len(list((checkpoints.folder / ".queue").iterdir())) <= 2
    server.faults.replace([])
    until(publisher, lambda: publisher.published.step == 15)
    assert publisher.finish(PATIENCE_SECONDS)
    assert (publisher.published.problem, publisher.published.ended) == (None, False)
    assert titles(api) == ["step 15", "initial commit"]
    assert start.told[-1] == (15, None)
    assert all(isinstance(error, RetryableError) for _, error in start.told[:-1])
    seen = events(capfd)
    assert sorted(e["step"] for e in seen if e["event"] == "push-dropped") == [5, 10]
    assert not list((checkpoints.folder / ".queue").iterdir())


def test_an_upload_that_broke_off_is_completed(start, api, checkpoints, server):
    server.fail("POST .*/commit/", drop_after_bytes=0)  # took effect, but nobody heard
    publisher = start()
    publisher.offer(*save(checkpoints, 5))
    assert publisher.finish(PATIENCE_SECONDS)
    assert titles(api) == ["step 5", "initial commit"]
    assert tags(api).keys() == {"step-5", "step-5-state"}


def test_the_hub_is_left_alone_for_as_long_as_it_asks(start, checkpoints, server, capfd):
    publisher = start()
    server.fail("POST /api/repos/create", times=None, status=429, headers={"Retry-After": "3600"})
    publisher.offer(*save(checkpoints, 5))
    until(publisher, lambda: publisher.published.problem and publisher._waiting)
    [delayed] = [e for e in events(capfd) if e["event"] == "push-delayed"]
    assert (delayed["step"], delayed["seconds"]) == (5, 3600)
    server.faults.replace([])
    assert publisher.finish(PATIENCE_SECONDS)  # the end does not wait for an hour


def test_back_off_grows_to_a_limit_and_differs_between_runs():
    for failures in range(1, 100):
        shortest, longest = (backoff_seconds(failures, 0, chance) for chance in (0, 1))
        assert longest == min(MAX_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (failures - 1)) == 2 * shortest
    assert backoff_seconds(1, 900, 0.5) == 900


@pytest.mark.parametrize(("token", "status"), [("stolen", "401"), ("reader", "403")])
def test_a_hub_that_refuses_ends_pushing_and_not_training(
    start, checkpoints, server, monkeypatch, capfd, token, status
):
    monkeypatch.setenv("HF_TOKEN", token)
    publisher = start()
    publisher.offer(*save(checkpoints, 5))
    until(publisher, lambda: publisher.published.ended)
    publisher._thread.join(PATIENCE_SECONDS)
    assert status in publisher.published.problem
    server.forget()
    publisher.offer(*save(checkpoints, 10))
    assert not publisher.finish(PATIENCE_SECONDS)
    assert not server.requests
    [ended] = [e for e in events(capfd) if e["event"] == "push-ended"]
    assert "spec.hub.tokenSecret" in ended["message"]


def test_a_bug_ends_pushing_and_not_training(start, checkpoints):
    publisher = start(lambda *_, **__: 1 // 0)
    publisher.offer(*save(checkpoints, 5))
    until(publisher, lambda: publisher.published.ended)
    assert "ZeroDivisionError" in publisher.published.problem


def test_a_newer_checkpoint_takes_the_place_of_one_that_waits(start, checkpoints):
    hub = Hub()
    publisher = start(hub)
    publisher.offer(*save(checkpoints, 5))
    assert hub.reached.acquire(timeout=PATIENCE_SECONDS)
    for step in (10, 15):
        publisher.offer(*save(checkpoints, step))
    hub.open.release(4)
    assert publisher.finish(PATIENCE_SECONDS)
    assert hub.seen == ["step-5-state", "step-5", "step-15-state", "step-15"]


def test_one_that_failed_gives_way_to_one_that_came_meanwhile(start, checkpoints):
    hub = Hub()
    hub.errors.append(RetryableError(Reason.HUB_UNAVAILABLE, "away"))
    publisher = start(hub)
    publisher.offer(*save(checkpoints, 5))
    assert hub.reached.acquire(timeout=PATIENCE_SECONDS)
    publisher.offer(*save(checkpoints, 10))
    hub.open.release(3)
    assert publisher.finish(PATIENCE_SECONDS)
    assert hub.seen == ["step-5-state", "step-10-state", "step-10"]


def test_the_end_does_not_wait_longer_than_asked(start, checkpoints, capfd):
    hub = Hub()
    publisher = start(hub)
    publisher.offer(*save(checkpoints, 5))
    assert hub.reached.acquire(timeout=PATIENCE_SECONDS)
    assert not publisher.finish(0)
    assert any(e["event"] == "push-given-up" for e in events(capfd))
    hub.open.release(2)
    publisher._thread.join(PATIENCE_SECONDS)
    assert not publisher._thread.is_alive()


def test_a_volume_without_hard_links_gets_copies(start, api, checkpoints, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr("os.link", refuse)
    publisher = start()
    publisher.offer(*save(checkpoints, 5))
    assert publisher.finish(PATIENCE_SECONDS)
    assert titles(api) == ["step 5", "initial commit"]


def test_a_queue_that_cannot_be_written_is_told_and_no_more(start, checkpoints, capfd):
    publisher = start()
    state, folder = save(checkpoints, 5)
    (folder / "optimizer.pt").unlink()
    publisher.offer(state, folder)
    [dropped] = [e for e in events(capfd) if e["event"] == "push-dropped"]
    assert "optimizer.pt" in dropped["why"]
    assert publisher.finish(PATIENCE_SECONDS)


def test_the_final_model_follows_the_checkpoints(start, api, server, checkpoints, tmp_path):
    publisher = start()
    publisher.offer(*save(checkpoints, 5))
    assert publisher.finish(PATIENCE_SECONDS)
    shutil.rmtree(checkpoints.folder)
    push_folder(tmp_path / "run", publisher._hub, "model", "final model", endpoint=server.url)
    assert titles(api) == ["final model", "step 5", "initial commit"]
    assert tags(api)["step-5"] == api.list_repo_commits("lab/model")[1].commit_id


def test_pushing_is_wanted_with_a_hub_and_unless_it_is_switched_off():
    spec = PretrainRunSpec.model_validate(SPEC)
    assert pushes_checkpoints(spec)
    assert not pushes_checkpoints(spec.model_copy(update={"hub": None}))
    off = PretrainRunSpec.model_validate({**SPEC, "checkpoint": {"pushEvery": False}})
    assert not pushes_checkpoints(off)
    assert [tag_of("main", 5), tag_of("b", 5)] == ["step-5", "b-step-5"]
