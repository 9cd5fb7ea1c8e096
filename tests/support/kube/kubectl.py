"""kubectl for the end-to-end tests: apply, watch for a condition, forward ports, delete."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config, watch

from hatchery_api.base import GROUP, VERSION
from hatchery_api.kinds import BY_KIND

Object = dict[str, Any]


class WaitedInVainError(AssertionError):
    """A condition did not hold in time; the message contains the last state."""


class Kube:
    """A cluster, addressed by a kubeconfig."""

    def __init__(self, kubeconfig: Path, kubectl: list[str]) -> None:
        self.kubeconfig = kubeconfig
        self.command = [*kubectl, f"--kubeconfig={kubeconfig}"]
        api = config.new_client_from_config(str(kubeconfig))
        self.custom = client.CustomObjectsApi(api)
        self.core = client.CoreV1Api(api)
        self.batch = client.BatchV1Api(api)

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Runs kubectl; a failure carries its error output."""
        done = subprocess.run([*self.command, *arguments], input=stdin, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout if done.returncode == 0 else done.stderr

    def apply(self, *objects: Object, namespace: str | None = None) -> None:
        """Applies objects."""
        where = ["-n", namespace] if namespace else []
        self.kubectl("apply", *where, "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, kind: str, namespace: str, name: str) -> Object:
        """One of our resources."""
        return self.custom.get_namespaced_custom_object(GROUP, VERSION, namespace, BY_KIND[kind].plural, name)

    def wait(
        self,
        kind: str,
        namespace: str,
        name: str,
        until: Callable[[Object], object],
        timeout_seconds: float,
    ) -> Object:
        """Watches one of our resources until a condition holds; fails as soon as the run ends without it."""
        deadline = time.monotonic() + timeout_seconds
        last: Object = {}
        while (left := deadline - time.monotonic()) > 0:
            stream = watch.Watch().stream(
                self.custom.list_namespaced_custom_object,
                GROUP,
                VERSION,
                namespace,
                BY_KIND[kind].plural,
                field_selector=f"metadata.name={name}",
                timeout_seconds=max(1, int(min(left, 60))),
            )
            for event in stream:
                last = event["object"]
                if until(last):
                    return last
                if is_terminal(last):
                    break
            if is_terminal(last):
                break
        said = json.dumps(last.get("status", {}).get("conditions"), indent=1)
        raise WaitedInVainError(f"{kind} {namespace}/{name} did not get there within {timeout_seconds:.0f} s:\n{said}")

    def wait_succeeded(self, kind: str, namespace: str, name: str, timeout_seconds: float) -> Object:
        """Watches until the artifact is ready."""
        return self.wait(kind, namespace, name, succeeded, timeout_seconds)

    def wait_pod(
        self, namespace: str, labels: str, until: Callable[[Any], object], timeout_seconds: float = 120
    ) -> Any:
        """Watches pods until one meets a condition."""
        stream = watch.Watch().stream(
            self.core.list_namespaced_pod, namespace, label_selector=labels, timeout_seconds=int(timeout_seconds)
        )
        for event in stream:
            if event["type"] != "DELETED" and until(event["object"]):
                return event["object"]
        raise WaitedInVainError(f"no pod {labels} in {namespace} got there within {timeout_seconds:.0f} s")

    @contextmanager
    def forward(self, namespace: str, target: str, port: int) -> Iterator[str]:
        """Forwards a free local port; yields `127.0.0.1:<port>`."""
        command = [*self.command, "port-forward", "-n", namespace, target, f":{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                found = re.search(r"127\.0\.0\.1:(\d+)", line)
                assert found, f"port-forward to {target}: {line}{process.stdout.read()}"
                # whatever is not read would block it
                threading.Thread(target=process.stdout.read, daemon=True).start()
                yield f"127.0.0.1:{found[1]}"
            finally:
                process.terminate()


def condition(resource: Object, kind: str) -> Object:
    """One condition; empty if absent."""
    found = [c for c in resource.get("status", {}).get("conditions", []) if c["type"] == kind]
    return found[0] if found else {}


def is_terminal(resource: Object) -> bool:
    """Whether the run has finished."""
    return condition(resource, "Succeeded").get("status") in ("True", "False")


def succeeded(resource: Object) -> bool:
    """Whether the artifact is ready."""
    return condition(resource, "Succeeded").get("status") == "True"


def failed_because(reason: str) -> Callable[[Object], bool]:
    """A condition for `wait`: Succeeded is False for this reason."""

    def check(resource: Object) -> bool:
        found = condition(resource, "Succeeded")
        return found.get("status") == "False" and found["reason"] == reason

    return check


def says(text: str) -> Callable[[Object], bool]:
    """A condition for `wait`: some condition mentions a text as reason or in its message."""

    def check(resource: Object) -> bool:
        conditions = resource.get("status", {}).get("conditions", [])
        return any(text in c["reason"] or text in c.get("message", "") for c in conditions)

    return check
