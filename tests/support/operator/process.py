"""The operator as a separate process against a real API server, and the cluster components that the test simulates."""

import itertools
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.console import wait_for
from tests.cluster.control_plane import ControlPlane, Ports
from tests.support.operator.builders import SPECS, artifact

from hatchery_api.conditions import Reason
from hatchery_api.contract import Report
from hatchery_api.kinds import BY_KIND
from hatchery_operator.codegen import rbac
from hatchery_operator.domain.objects import rfc3339

SYSTEM = "hatchery-system"
ACCOUNT = "hatchery-operator"
WAIT_SECONDS = 60.0

Object = dict[str, Any]
Request = Callable[..., tuple[int, Object]]
"""`method, path, body` to status code and body, as administrator."""


def install(plane: ControlPlane, account: str = ACCOUNT, namespaces: Sequence[str] = ()) -> None:
    """The operator's account with exactly its permissions: those of the manifests, or those for some namespaces."""
    plane.apply(
        [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}},
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": SYSTEM}},
        ]
    )
    roles = rbac.operator_roles(SYSTEM, account, namespaces)
    plane.apply([*roles, *(rbac.binding(role, account, SYSTEM) for role in roles)])


class OperatorProcess:
    """`python -m hatchery_operator` under its own account."""

    def __init__(
        self,
        plane: ControlPlane,
        folder: Path,
        account: str = ACCOUNT,
        *,
        packages: Path | None = None,
        server: str = "",
        **settings: Any,
    ) -> None:
        """Prepares it.

        There is no election unless the settings say so: one that is killed would keep the next waiting for its lease.
        `packages` holds another release of the operator, without it this checkout's is run; `server` is what it takes
        for the API server, the real one by default.
        """
        ports = Ports.free()
        self.health, self.metrics = ports.api, ports.etcd
        self._log = folder / "operator.log"
        self._settings = folder / "settings.yaml"
        values: Object = {"healthPort": self.health, "metricsPort": self.metrics, "resyncSeconds": 600}
        if packages is None:  # the first release knew neither
            values |= {"operatorNamespace": SYSTEM, "leaderElection": {"enabled": False}}
        self._settings.write_text(yaml.safe_dump({**values, **settings}))
        kubeconfig = plane.service_account_kubeconfig(SYSTEM, account, folder / "kubeconfig", server=server)
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "HOSTNAME": f"operator-{self.health}"}
        if packages:
            self._environment["PYTHONPATH"] = str(packages)
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Starts it."""
        command = [sys.executable, "-m", "hatchery_operator", "--config", str(self._settings)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

    def start(self) -> None:
        """Starts it and waits until it is ready."""
        self.launch()
        wait_for(
            "the operator",
            lambda: self.get(self.health, "/readyz")[0] == 200,
            why="it lists all resources",
            timeout_seconds=WAIT_SECONDS,
            still_possible=self._died,
        )

    @property
    def pid(self) -> int:
        """The process, while it runs."""
        assert self._process is not None, "the operator is not running"
        return self._process.pid

    def kill(self) -> None:
        """Kills it, as a crash of its node would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Stops it as the kubelet does; returns its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, sign: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(sign)
        code = self._process.wait(timeout=20)
        self._process = None
        return code

    def exit_code(self) -> int | None:
        """Exit code; None while it runs."""
        return self._process.poll() if self._process else None

    def _died(self) -> str | None:
        if self.exit_code() is not None:
            return f"it ended: {self._log.read_text()[-3000:]}"
        return None

    def log(self) -> list[Object]:
        """All lines of the log."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def get(self, port: int, path: str) -> tuple[int, str]:
        """Status and body of one of the operator's HTTP endpoints; status 0 without a response."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> dict[str, float]:
        """Samples of a metric by their labels as text."""
        _, text = self.get(self.metrics, "/metrics")
        lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith(name))
        return {labels.removeprefix(name): float(value) for labels, _, value in lines}


class Team:
    """A namespace with runs, and the test as its kubelet and Job controller."""

    def __init__(self, request: Request, name: str) -> None:
        self._request = request
        self.name = name
        begun = datetime.now(UTC) - timedelta(minutes=1)
        self._clock = (begun + timedelta(seconds=n) for n in itertools.count())
        self.send("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        # where controllers run, the account may be there already
        request("POST", f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})

    def send(self, method: str, path: str, body: Any = None, *, expect: int | None = None, **query: str) -> Object:
        """A request that must succeed."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        status, answer = self._request(method, path, body, content_type=kind, **query)
        assert status == expect if expect else status < 300, f"{method} {path}: {status} {answer.get('message')}"
        return answer

    def path(self, kind: str, name: str = "") -> str:
        """Path of our resources."""
        return f"/apis/hatchery.dev/v1alpha1/namespaces/{self.name}/{BY_KIND[kind].plural}/{name}".rstrip("/")

    def batch(self, name: str = "") -> str:
        """Path of Jobs."""
        return f"/apis/batch/v1/namespaces/{self.name}/jobs/{name}".rstrip("/")

    def core(self, plural: str, name: str = "") -> str:
        """Path of objects of the core group."""
        return f"/api/v1/namespaces/{self.name}/{plural}/{name}".rstrip("/")

    def apply(self, kind: str, name: str, **spec: Any) -> None:
        """Creates one of our resources."""
        body = {
            "apiVersion": "hatchery.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": {**SPECS[kind], **spec},
        }
        self.send("POST", self.path(kind), body)

    def patch(self, kind: str, name: str, **spec: Any) -> None:
        """Changes the spec of one of our resources."""
        self.send("PATCH", self.path(kind, name), {"spec": spec})

    def run(self, kind: str, name: str) -> Object:
        """One of our resources."""
        return self.send("GET", self.path(kind, name))

    def condition(self, kind: str, name: str, condition: str = "Succeeded") -> tuple[str, str]:
        """Status and reason of a condition."""
        conditions = self.run(kind, name).get("status", {}).get("conditions", [])
        return next(((c["status"], c["reason"]) for c in conditions if c["type"] == condition), ("", ""))

    def wait(self, what: str, probe: Callable[[], object], timeout_seconds: float = WAIT_SECONDS) -> None:
        """Waits until a condition holds."""
        wait_for(what, probe, why="the operator works", timeout_seconds=timeout_seconds)

    def wait_reason(self, kind: str, name: str, reason: str, condition: str = "Succeeded") -> None:
        """Waits for a condition to have a reason."""
        try:
            self.wait(f"{kind} {name} {reason}", lambda: self.condition(kind, name, condition)[1] == reason)
        except Exception as error:
            raise AssertionError(self.run(kind, name).get("status")) from error

    def jobs(self) -> dict[str, Object]:
        """Jobs by name."""
        return {job["metadata"]["name"]: job for job in self.send("GET", self.batch())["items"]}

    def wait_job(self, name: str) -> Object:
        """Waits for a Job."""
        self.wait(f"Job {name}", lambda: name in self.jobs())
        return self.jobs()[name]

    def run_pods(self, name: str) -> Object:
        """Starts a Job's pod, whatever it asks for, as soon as there is the Job."""
        return self.start_pod(self.wait_job(name))

    def start_pod(self, job: Object) -> Object:
        """Starts a Job's pod."""
        name = job["metadata"]["name"]
        template = job["spec"]["template"]
        known = {"batch.kubernetes.io/job-name": name, "batch.kubernetes.io/job-completion-index": "0"}
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
        pod = {
            "metadata": {
                "name": f"{name}-0",
                "labels": {**template["metadata"]["labels"], **known},
                "annotations": template["metadata"]["annotations"],
                "ownerReferences": [{**owner, "controller": True}],
            },
            "spec": template["spec"],
        }
        made = self.send("POST", self.core("pods"), pod)
        self.job_status(name, {"active": 1, "ready": 1, "startTime": self._time()})
        return made

    def end_job(self, name: str, report: Report | None = None, code: int = 0) -> None:
        """Ends a Job's pod with a report and an exit code, and then the Job."""
        report = report or Report(reason=Reason.COMPLETED, artifact=artifact(f"d-{name}"))
        if code:
            report = report.model_copy(update={"artifact": None})
        ended = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "message": report.termination_message(),
            "startedAt": self._time(),
            "finishedAt": self._time(),
        }
        container = {"name": "main", "state": {"terminated": ended}, "image": "x", "imageID": "", "ready": False}
        container["restartCount"] = 0
        phase = "Failed" if code else "Succeeded"
        self.pod_status(f"{name}-0", {"phase": phase, "containerStatuses": [container]})
        self.finish_job(
            name, failed=bool(code), reason="PodFailurePolicy" if code in (64, 65) else "BackoffLimitExceeded"
        )

    def finish_job(self, name: str, *, failed: bool, reason: str) -> None:
        """Writes what the Job controller writes when a Job finishes."""
        now = self._time()
        before, after = ("FailureTarget", "Failed") if failed else ("SuccessCriteriaMet", "Complete")
        reason = reason if failed else "CompletionsReached"
        start = self.send("GET", self.batch(name))["status"].get("startTime", now)
        status: Object = {
            "startTime": start,
            "active": 0,
            "ready": 0,
            "conditions": [
                {"type": kind, "status": "True", "reason": reason, "message": "over", "lastTransitionTime": now}
                for kind in (before, after)
            ],
        }
        status |= {"failed": 1} if failed else {"succeeded": 1, "completedIndexes": "0", "completionTime": now}
        self.job_status(name, status)

    def job_status(self, name: str, status: Object) -> None:
        """Writes a Job's status."""
        self.send("PATCH", self.batch(name) + "/status", {"status": status})

    def pod_status(self, name: str, status: Object) -> None:
        """Writes a pod's status."""
        self.send("PATCH", self.core("pods", name) + "/status", {"status": status})

    def _time(self) -> str:
        """Waits for the next second, so that later events have later timestamps."""
        return rfc3339(next(self._clock))
