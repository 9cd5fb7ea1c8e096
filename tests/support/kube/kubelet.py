"""A stepwise kubelet and Job controller, and an independent record of every Job ever created."""

import http
import http.client
import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from typing import Self

from tests.cluster.control_plane import ADMIN, LOOPBACK, ControlPlane
from tests.support.operator.process import Object, Team

from hatchery_api.contract import Report

End = tuple[Report | None, int]
"""How a pod ends: its report, None for a good one, and its exit code."""

JOBS_PATH = "/apis/batch/v1/jobs"


def job_ends(job: Object) -> bool:
    """Whether a Job has finished."""
    return any(c["type"] in ("Complete", "Failed") for c in job.get("status", {}).get("conditions", []))


class Kubelet:
    """Runs the Jobs of a namespace: a pod starts in one step and ends in a later one."""

    def __init__(self, team: Team, ends: Callable[[str], End] = lambda _: (None, 0)) -> None:
        """`ends` maps a Job's name to the end of its pod."""
        self._team = team
        self._ends = ends

    def step(self) -> int:
        """Advances every unfinished Job by one step; returns their number."""
        waiting = [
            job
            for job in self._team.jobs().values()
            if not job_ends(job) and not job["spec"].get("suspend") and "deletionTimestamp" not in job["metadata"]
        ]
        for job in waiting:
            if "startTime" in job.get("status", {}):
                self._team.end_job(job["metadata"]["name"], *self._ends(job["metadata"]["name"]))
            else:
                self._team.start_pod(job)
        return len(waiting)


class JobRecord:
    """Every Job that was ever created, from a watch of the test's own; a context manager."""

    def __init__(self, plane: ControlPlane) -> None:
        authority = plane.authority
        self._port = plane.ports.api
        self._context = ssl.create_default_context(cafile=str(authority.certificate))
        self._context.load_cert_chain(authority.certificate_of(ADMIN), authority.key_of(ADMIN))
        self._seen: dict[str, tuple[str, str]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="record of Jobs", daemon=True)

    def __enter__(self) -> Self:
        connection = self._connect()
        self._list(connection)
        connection.close()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def created(self, namespace: str) -> Counter[str]:
        """How many Jobs of each name were created in a namespace."""
        return Counter(name for where, name in [*self._seen.values()] if where == namespace)

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(LOOPBACK, self._port, context=self._context, timeout=30)

    def _watch(self) -> None:
        while not self._stopped.is_set():
            connection = self._connect()
            try:
                # a watch of a second ends when the record does, and one that breaks is begun again where it was
                connection.request(
                    "GET", f"{JOBS_PATH}?watch=1&allowWatchBookmarks=1&timeoutSeconds=1&resourceVersion={self._version}"
                )
                with connection.getresponse() as answer:
                    is_gone = not all(self._take(json.loads(line)) for line in answer)
                if is_gone:  # an API server that was started afresh knows no history
                    connection.close()
                    self._list(connection)
            except (OSError, http.client.HTTPException):
                self._stopped.wait(0.2)
            finally:
                connection.close()

    def _list(self, connection: http.client.HTTPSConnection) -> None:
        connection.request("GET", JOBS_PATH)
        listing = json.loads(connection.getresponse().read())
        for job in listing["items"]:
            self._note(job["metadata"])
        self._version = listing["metadata"]["resourceVersion"]

    def _take(self, event: Object) -> bool:
        """Takes an event; returns whether the watch can continue."""
        if event["type"] == "ERROR":
            assert event["object"]["code"] == http.HTTPStatus.GONE, event["object"]
            return False
        metadata = event["object"]["metadata"]
        self._version = metadata["resourceVersion"]
        if event["type"] == "ADDED":
            self._note(metadata)
        return True

    def _note(self, metadata: Object) -> None:
        self._seen[metadata["uid"]] = metadata["namespace"], metadata["name"]
