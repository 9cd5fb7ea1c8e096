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
