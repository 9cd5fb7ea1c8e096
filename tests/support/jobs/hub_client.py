"""The Hub's client library as a fresh process has it, against a server of the test's own."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import constants
from tests.support.hub_server import HubServer


@contextmanager
def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A running Hub with the tokens `writer`, which is in the environment, and `reader`; the client never sleeps."""
    harnesses = folder / "harnesses.json"
    harnesses.write_text("{}")
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(harnesses), raising=False)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    monkeypatch.setenv("HF_TOKEN", "writer")
    options = {"tokens": ("writer",), "read_tokens": ("reader",), "namespaces": frozenset({"lab"})}
    with HubServer(folder / "hub", **options) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)  # the check of cards knows no other endpoint
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield running


@contextmanager
def datasets_served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A running Hub for `datasets`, with caches of the test's own and the token `reader` in the environment."""
    import datasets

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub-cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets-cache")
    monkeypatch.setenv("HF_TOKEN", "reader")
    options = {"tokens": ("writer",), "read_tokens": ("reader",), "sleep": lambda _seconds: None}
    with HubServer(folder / "hub", **options) as running:
        yield running
