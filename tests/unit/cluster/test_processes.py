import json
import os
import sys
from pathlib import Path

from tests.cluster.console import wait_for
from tests.cluster.processes import Processes, start_ticks

SLEEP = [sys.executable, "-c", "import time; print('started', flush=True); time.sleep(60)"]


def test_a_running_process_is_not_started_again(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    try:
        assert processes.ensure("a", SLEEP)
        first = processes.record("a")
        assert not processes.ensure("a", SLEEP)
        assert processes.record("a") == first
        assert processes.ensure("a", SLEEP, configuration="changed")
        assert processes.record("a") != first
    finally:
        assert processes.stop("a")
    assert not processes.alive("a")
    assert processes.names() == []
    assert not processes.stop("a")


def test_a_recycled_process_id_is_not_ours(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.ensure("a", SLEEP)
    record = processes.record("a")
    assert record is not None
    file = tmp_path / "processes" / "a.json"
    text = json.loads(file.read_text())
    file.write_text(json.dumps({**text, "start_ticks": text["start_ticks"] - 1}))
    assert not processes.stop("a")
    assert start_ticks(record.pid) == record.start_ticks, "it must not have been signalled"
    file.write_text(json.dumps(text))
    assert processes.stop("a")


def test_a_process_that_ended_tells_the_end_of_its_log(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.ensure("a", [sys.executable, "-c", "print('the reason')"])
    wait_for("the end", lambda: not processes.alive("a"), why="it only prints", timeout_seconds=10)
    assert "the reason" in (processes.died("a") or "")


def test_a_damaged_record_is_no_process(tmp_path: Path) -> None:
    (tmp_path / "processes").mkdir()
    (tmp_path / "processes" / "a.json").write_text("{")
    assert not Processes(tmp_path).alive("a")


def test_this_process_has_a_start_time() -> None:
    assert start_ticks(os.getpid())
    assert start_ticks(2**22) is None
