"""The log of a process in a file of its own."""

import json
import os
from pathlib import Path

import pytest

from hatchery_jobs.runtime import logs


@pytest.fixture
def file(tmp_path):
    yield tmp_path / "logs" / "worker-3.jsonl"
    logs.to_file(None)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_file_has_all_lines_and_the_console_those_that_are_meant_for_people(file, capsys):
    logs.to_file(file)
    logs.log("begun", step=1)
    logs.debug("update", step=2, data=0.5)
    assert [(line["level"], line["event"], line["step"]) for line in lines(file)] == [
        ("info", "begun", 1),
        ("debug", "update", 2),
    ]
    assert [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()] == ["begun"]


def test_a_process_that_is_not_the_main_one_prints_errors_only(file, capsys):
    logs.to_file(file, console=False)
    logs.log("begun")
    logs.log("failed", level="error", trace="...")
    assert [line["event"] for line in lines(file)] == ["begun", "failed"]
    assert [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()] == ["failed"]


def test_a_process_that_begins_again_goes_on_in_the_file(file):
    for attempt in (1, 2):
        logs.to_file(file)
        logs.debug("begun", attempt=attempt)
    assert [line["attempt"] for line in lines(file)] == [1, 2]


def test_no_secret_gets_into_the_file(file, monkeypatch):
    monkeypatch.setitem(os.environ, "WANDB_API_KEY", "0123456789abcdef")
    logs.to_file(file)
    logs.debug("failed", error="401 for key 0123456789abcdef")
    assert "0123456789abcdef" not in file.read_text()
    assert logs.REDACTED in file.read_text()


def test_the_file_is_bounded(file, monkeypatch):
    monkeypatch.setattr(logs, "MAX_FILE_BYTES", 1000)
    logs.to_file(file)
    for step in range(200):
        logs.debug("update", step=step)
    kept = sorted(file.parent.iterdir())
    assert [path.name for path in kept] == ["worker-3.jsonl", "worker-3.previous.jsonl"]
    assert all(path.stat().st_size < 1100 for path in kept)
    steps = [line["step"] for path in reversed(kept) for line in lines(path)]
    assert steps == list(range(steps[0], 200))


def test_a_log_that_cannot_be_written_stops_nothing(file, capsys):
    file.parent.write_text("no folder")
    logs.to_file(file, console=False)
    logs.debug("update")
    logs.log("failed", level="error")
    assert [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()] == ["no-log-file", "failed"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_silences_the_file_and_nothing_else(tmp_path, capsys):
    (tmp_path / "worker-0.jsonl").symlink_to("/dev/full")
    logs.to_file(tmp_path / "worker-0.jsonl")
    logs.log("begun")
    logs.log("update")
    assert len(capsys.readouterr().out.splitlines()) == 2
    logs.to_file(None)
