"""The timeline across restarts."""

import itertools

from hatchery_jobs.pretrain.record.event_log import (
    Event,
    Timeline,
    read_timeline,
    restarts,
    restarts_by_cause,
    worker_seconds,
)
from hatchery_jobs.pretrain.state import Times


def life(path, first, last, cause=None):
    """One life of the workers; without a cause they are killed."""
    line = Timeline(path, itertools.count(first * 100).__next__)
    line.add(Event.BEGAN, first, workers=2)
    for step in range(first + 1, last + 1):
        line.updated(step, 64, Times(data=0.1, compute=0.2, optimizer=0.05, total=0.4))
    if cause:
        line.add(Event.ENDED, last, cause=cause)
    line.close()


def test_restarts_are_told_with_their_causes(tmp_path):
    path = tmp_path / "run" / "timeline.jsonl"
    life(path, 0, 3, "interrupted")
    life(path, 3, 5)
    life(path, 4, 6, "out of memory")
    life(path, 4, 8, "done")
    lines = read_timeline(path)
    assert restarts(lines) == [(3, "interrupted"), (4, "killed"), (4, "out of memory")]
    assert restarts_by_cause(lines) == {"interrupted": 1, "killed": 1, "out of memory": 1}
    steps = [line["step"] for line in lines if line["event"] == Event.UPDATE]
    assert steps == [1, 2, 3, 4, 5, 5, 6, 5, 6, 7, 8]  # what was done in vain stays
    assert lines[1] == {
        "time": 1, "event": "update", "step": 1, "tokens": 64,
        "data": 0.1, "compute": 0.2, "optimizer": 0.05, "total": 0.4,
    }  # fmt: skip


def test_the_time_of_killed_workers_counts_up_to_their_last_line(tmp_path):
    path = tmp_path / "timeline.jsonl"
    assert worker_seconds([]) == 0
    life(path, 0, 3, "interrupted")  # seconds 0 to 4
    life(path, 3, 5)  # 300 to 302, killed
    assert worker_seconds(read_timeline(path)) == 4 + 2
    life(path, 4, 8, "done")  # 400 to 405
    assert worker_seconds(read_timeline(path)) == 4 + 2 + 5


def test_a_line_that_was_torn_by_a_kill_costs_only_itself(tmp_path):
    path = tmp_path / "timeline.jsonl"
    life(path, 0, 3)
    path.write_bytes(path.read_bytes()[:-20])
    life(path, 2, 4, "done")
    steps = [line["step"] for line in read_timeline(path) if line["event"] == Event.UPDATE]
    assert steps == [1, 2, 3, 4]
    assert restarts(read_timeline(path)) == [(2, "killed")]


def test_a_run_without_a_timeline_has_no_restarts(tmp_path):
    assert read_timeline(tmp_path / "none") == []
    assert restarts_by_cause([]) == {}


def test_a_full_disk_silences_the_timeline_once(tmp_path, capsys):
    (tmp_path / "full").symlink_to("/dev/full")
    line = Timeline(tmp_path / "full")
    for step in range(3):
        line.add(Event.CHECKPOINT, step)
    line.close()
    assert capsys.readouterr().out.count("timeline-not-written") == 1
