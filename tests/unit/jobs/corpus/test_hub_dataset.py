"""A dataset of the Hub as a source, read from a server that speaks its protocol."""

import json

import pytest

from hatchery_api.conditions import Reason
from hatchery_jobs.runtime.errors import DataError, RetryableError, SpecError

pytest.importorskip("huggingface_hub")

from huggingface_hub import HfApi, constants
from tests.support.jobs.hub_client import datasets_served

pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning", "ignore:unclosed:ResourceWarning")


@pytest.fixture
def server(tmp_path, monkeypatch):
    with datasets_served(tmp_path, monkeypatch) as running:
        yield running


def push(server, *texts, field="text"):
    api = HfApi(endpoint=server.url, token="writer")
    api.create_repo("lab/texts", repo_type="dataset", private=True, exist_ok=True)
    data = "".join(json.dumps({field: text, "n": 1}) + "\n" for text in texts)
    return api.upload_file(
        path_or_fileobj=data.encode(), path_in_repo="train.jsonl", repo_id="lab/texts", repo_type="dataset"
    ).oid


def source(**settings):
    return [{"name": "h", "hub": {"dataset": "lab/texts", **settings}}]


def test_rows_are_read_at_the_commit_of_the_revision(server, make):
    from pyarrow import parquet

    first = push(server, "one", "two")
    outcome = make(endpoint=server.url, sources=source())
    rows = parquet.read_table(outcome.folder / "data" / "train-00000-of-00001.parquet").to_pylist()
    assert [(row["text"], row["row"]) for row in rows] == [("one", 1), ("two", 2)]
    assert rows[0]["path"] == f"hf://datasets/lab/texts@{first}/train"
    assert f"at `{first}`" in (outcome.folder / "README.md").read_text()
    assert make(endpoint=server.url, sources=source()).cached
    push(server, "three")
    changed = make(endpoint=server.url, sources=source())
    assert not changed.cached
    assert make(endpoint=server.url, sources=source(revision=first)).result.funnel[0].rows == 2


def test_the_endpoint_of_the_source_wins_and_is_put_back(server, make):
    push(server, "one")
    before = constants.ENDPOINT
    assert make(endpoint="http://127.0.0.1:1", sources=source(endpoint=server.url)).result.funnel[0].rows == 1
    assert before == constants.ENDPOINT


@pytest.mark.parametrize(
    ("settings", "error", "reason", "says"),
    [
        ({"dataset": "lab/none"}, SpecError, Reason.HUB_NOT_FOUND, "lab/none"),
        ({"revision": "v9"}, SpecError, Reason.HUB_NOT_FOUND, "v9"),
        ({"split": "dev"}, DataError, Reason.SOURCE_NOT_FOUND, "dev"),
        ({"config": "none"}, DataError, Reason.SOURCE_NOT_FOUND, "none"),
        ({"textField": "body"}, SpecError, Reason.INVALID_SPEC, "no column 'body'; the dataset has text, n"),
        ({"textField": "n"}, DataError, Reason.UNREADABLE_INPUT, "'n' is int"),
        ({"endpoint": "http://127.0.0.1:1"}, RetryableError, Reason.HUB_UNAVAILABLE, "127.0.0.1:1"),
    ],
)
def test_what_is_not_there_is_named(server, make, settings, error, reason, says):
    push(server, "one")
    with pytest.raises(error) as raised:
        make(endpoint=server.url, sources=source(**settings))
    assert raised.value.reason is reason
    assert says in raised.value.message
    assert "spec.sources[h]" in raised.value.message
