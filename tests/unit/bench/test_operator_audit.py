import json
from pathlib import Path

import pytest
from tests.bench.operator_audit import Burst, Journal, Write, median_burst
from tests.cluster.control_plane import ADMIN

OPERATOR = "system:serviceaccount:system:operator"


def write(resource: str, name: str, *, at: float, user: str = OPERATOR, verb: str = "create", code: int = 201) -> Write:
    return Write(user, verb, resource, name, code, received=at - 0.1, done=at)


def applied(name: str, at: float, **changes: object) -> Write:
    return write("runs", name, at=at, **{"user": ADMIN.common_name, **changes})


def status(name: str, at: float, code: int = 200) -> Write:
    return write("runs/status", name, at=at, verb="patch", code=code)


WRITES = [
    applied("run-0", 10.1),
    applied("run-1", 10.5),
    applied("run-2", 10.6, code=409),
    applied("run-0", 10.7, verb="patch", code=200),
    status("run-0", 11.0, code=409),
    status("run-0", 11.5),
    status("run-0", 19.0),
    status("run-1", 12.0),
    write("jobs", "run-0-a1", at=11.0),
    write("jobs", "run-1-a1", at=14.0, verb="patch"),
    write("jobs", "run-1-a1", at=18.0, verb="patch", code=200),
    write("jobs", "foreign", at=20.0, user="somebody"),
    write("events", "e", at=15.0),
    write("leases", "l", at=16.0),
]
BURST = Burst(WRITES, OPERATOR, "runs")


def test_a_burst_lasts_from_the_first_creation_to_the_last_child_of_the_operator() -> None:
    assert BURST.seconds == pytest.approx(4.0)
    assert BURST.objects_per_second == pytest.approx(0.5)


def test_an_applied_child_counts_when_it_was_made_by_it() -> None:
    assert BURST.made() == {"jobs": 2}


def test_objects_that_were_refused_do_not_count() -> None:
    assert set(BURST.applied) == {"run-0", "run-1"}
    assert BURST.applied_per_second == pytest.approx(2 / 0.5)


def test_the_first_status_is_the_first_that_was_taken() -> None:
    assert BURST.first_status_seconds == pytest.approx({"run-0": 1.5, "run-1": 1.6})
    assert BURST.p(50) == pytest.approx(1.5)
    assert BURST.p(99) == pytest.approx(1.6)


def test_leases_are_no_writes_of_an_object_but_events_and_refusals_are() -> None:
    assert BURST.per_object(BURST.own) == pytest.approx(8 / 2)


def test_only_objects_of_the_burst_and_their_children_count() -> None:
    burst = Burst(WRITES, OPERATOR, "runs", "run-1")
    assert set(burst.applied) == {"run-1"}
    assert [child.name for child in burst.children] == ["run-1-a1"]


def test_the_median_burst_is_one_that_happened() -> None:
    slow, fast = Burst([*WRITES, write("jobs", "x", at=30.0)], OPERATOR, "runs"), Burst(WRITES[:9], OPERATOR, "runs")
    assert median_burst([slow, fast, BURST]) is BURST
    assert median_burst([slow]) is slow


def line(name: str) -> str:
    event = {
        "user": {"username": OPERATOR},
        "verb": "patch",
        "objectRef": {"resource": "jobs", "subresource": "status", "name": name, "namespace": "bench"},
        "responseStatus": {"code": 200},
        "requestReceivedTimestamp": "2026-03-01T12:00:00.250000Z",
        "stageTimestamp": "2026-03-01T12:00:00.500000Z",
    }
    return json.dumps(event)


def test_a_journal_reads_whole_lines_only_and_each_once(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    first, second = line("a"), line("b")
    log.write_text(f"{first}\n{second[:20]}")
    journal = Journal(log)
    assert [w.name for w in journal.read()] == ["a"]
    start = journal.position()
    with log.open("a") as file:
        file.write(f"{second[20:]}\n")
    (written,) = journal.read(start)
    assert (written.name, written.resource, written.code) == ("b", "jobs/status", 200)
    assert written.done - written.received == pytest.approx(0.25)
    assert [w.name for w in journal.read()] == ["a", "b"]


def test_a_write_without_an_object_is_still_a_write(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    event = json.loads(line("a"))
    del event["objectRef"], event["responseStatus"]
    log.write_text(json.dumps(event) + "\n")
    (written,) = Journal(log).read()
    assert (written.resource, written.name, written.code) == ("", "", 0)
    assert not written.good
