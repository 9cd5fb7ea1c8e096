"""The operator bench's own instruments on a real API server: what is sent is what its journal shows."""

from collections.abc import Iterator

import pytest
from tests.bench.operator_audit import AuditedPlane, Burst, Journal
from tests.bench.operator_load import MERGE_PATCH, TURN, Request, send, steady
from tests.cluster.console import wait_for
from tests.cluster.control_plane import ADMIN

pytestmark = pytest.mark.apiserver

COLLECTION = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditedPlane]:
    with AuditedPlane(tmp_path_factory.mktemp("audited")) as audited:
        yield audited


def config_map(name: str) -> Request:
    return Request("POST", COLLECTION, {"metadata": {"name": name}})


def test_the_journal_shows_each_object_of_a_burst_once(plane: AuditedPlane) -> None:
    journal = Journal(plane.audit_log)
    start = journal.position()
    send(plane, [config_map(f"burst-{number}") for number in range(50)])
    burst = Burst(journal.read(start), ADMIN.common_name, "configmaps", "burst-")
    assert set(burst.applied) == {f"burst-{number}" for number in range(50)}
    assert burst.made() == {"configmaps": 50}


def test_reads_are_not_in_the_journal(plane: AuditedPlane) -> None:
    journal = Journal(plane.audit_log)
    start = journal.position()
    plane.kubectl("get", "configmaps", "--all-namespaces")
    assert [write for write in journal.read(start) if write.user == ADMIN.common_name] == []


def test_a_steady_load_changes_its_object_at_its_rate_until_the_block_ends(plane: AuditedPlane) -> None:
    journal = Journal(plane.audit_log)
    send(plane, [config_map("hot")])
    request = Request("PATCH", f"{COLLECTION}/hot", {"metadata": {"annotations": {"turn": TURN}}}, MERGE_PATCH)
    start = journal.position()
    with steady(plane, request, per_second=20):
        wait_for("updates", lambda: len(journal.read(start)) >= 20, why="one each 50 ms", timeout_seconds=30)
    updates = [write for write in journal.read(start) if write.name == "hot"]
    assert len(updates) / (updates[-1].done - updates[0].done) == pytest.approx(20, rel=0.5)
    assert f'"turn":"{len(updates) - 1}"' in plane.kubectl("get", "configmap", "hot", "-o", "json").replace(" ", "")
    assert journal.read(journal.position()) == []


def test_a_refused_load_is_no_measurement(plane: AuditedPlane) -> None:
    send(plane, [config_map("twice")])
    with pytest.raises(AssertionError, match="refuses"):
        send(plane, [config_map("twice")])
