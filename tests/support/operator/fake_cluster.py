"""An in-memory API server with the rules the operator relies on: versions, conflicts, UIDs, owners, label selectors.

The test plays kubelet and Job controller through `end_job` and `run_pods`. The same interface as `Cluster`; what a real
API server adds (schemas, CEL, admission, RBAC) is proven in tests/apiserver.
"""

import copy
import itertools
from collections.abc import AsyncIterator, Callable
from functools import cached_property
from typing import Any

from tests.support.operator.builders import NAMESPACE, NOW, artifact

from hatchery_api.conditions import Reason
from hatchery_api.contract import Report
from hatchery_api.kinds import KINDS
from hatchery_api.schema import custom_resource_definition
from hatchery_operator.domain.objects import Manifest, rfc3339
from hatchery_operator.errors import AlreadyExistsError, ConflictError, GoneError
from hatchery_operator.kube.crd_check import DOCUMENT

Address = tuple[str, str, str]


def served_schemas() -> dict[str, Any]:
    """The schemas of our definitions as the API server names them."""
    return {
        f"dev.hatchery.v1alpha1.{kind.kind}": custom_resource_definition(kind)["spec"]["versions"][0]["schema"][
            "openAPIV3Schema"
        ]
        for kind in KINDS
    }


class CrashError(BaseException):
    """Kills the operator; nothing in it may catch this."""


class FakeCluster:
    """Objects by kind, namespace and name."""

    def __init__(self) -> None:
        self.objects: dict[Address, Manifest] = {}
        self.writes: list[str] = []
        """Every write that took effect, as `verb kind name`."""
        self.refuse: Callable[[str, Manifest], Exception | None] = lambda _verb, _manifest: None
        """The error for a write, which then has no effect; None lets it through."""
        self.crash_after: int | None = None
        """Number of writes after which the operator dies, before it receives the last response."""
        self._versions = itertools.count(1)
        self._uids = itertools.count(1)

    @cached_property
    def schemas(self) -> dict[str, Any]:
        """Published schemas of our API group, by name."""
        return served_schemas()

    async def read(self, path: str) -> Manifest:
        assert path == DOCUMENT
        return {"components": {"schemas": self.schemas}}

    async def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        return copy.deepcopy(self.objects.get((kind, namespace, name)))

    async def list(
        self, kind: str, namespace: str | None, labels: str = "", fields: str = ""
    ) -> AsyncIterator[Manifest]:
        wanted = [part.partition("=")[::2] for part in labels.split(",") if part]
        for (name_of_kind, where, _), found in list(self.objects.items()):
            has = found["metadata"].get("labels", {})
            matches = all(key in has and (not value or has[key] == value) for key, value in wanted)
            if name_of_kind == kind and namespace in (None, where) and matches and _selected(found, fields):
                yield copy.deepcopy(found)

    async def create(self, manifest: Manifest, *, fenced: bool = True) -> Manifest:
        return self._write("create", manifest, self._create)

    async def apply(
        self, manifest: Manifest, manager: str = "hatchery", subresource: str | None = None, *, fenced: bool = True
    ) -> Manifest:
        return self._write("status" if subresource else "apply", manifest, self._apply)

    async def replace(
        self, manifest: Manifest, manager: str = "hatchery", subresource: str | None = None, *, fenced: bool = True
    ) -> Manifest:
        assert "resourceVersion" in manifest["metadata"]
        return self._write("status" if subresource else "replace", manifest, self._apply)

    async def merge(self, manifest: Manifest) -> Manifest:
        return self._write("merge", manifest, self._merge)

    async def delete(
        self, kind: str, namespace: str, name: str, uid: str | None = None, *, foreground: bool = False
    ) -> Manifest | None:
        found = self.objects.get((kind, namespace, name))
        if found and uid in (None, found["metadata"]["uid"]):
            self._write("delete", found, lambda one: self.objects.pop(_address(one)))
        return None

    def _write(self, verb: str, manifest: Manifest, effect: Callable[[Manifest], Manifest]) -> Manifest:
        if manifest["kind"] == "Event":
            return copy.deepcopy(effect(copy.deepcopy(manifest)))
        if error := self.refuse(verb, manifest):
            raise error
        written = effect(copy.deepcopy(manifest))
        self.writes.append(f"{verb} {manifest['kind']} {manifest['metadata']['name']}")
        if self.crash_after == len(self.writes):
            raise CrashError
        return copy.deepcopy(written)

    def _create(self, manifest: Manifest) -> Manifest:
        if _address(manifest) in self.objects:
            raise AlreadyExistsError("create", "already exists", 409)
        manifest["metadata"] |= {"uid": f"u{next(self._uids)}", "creationTimestamp": rfc3339(NOW), "generation": 1}
        return self.put(manifest)

    def _apply(self, manifest: Manifest) -> Manifest:
        stored = self.objects.get(_address(manifest))
        metadata = manifest["metadata"]
        if stored is None:
            if "uid" in metadata:
                raise GoneError("apply", "not found", 404)
            return self._create(manifest)
        for field in ("uid", "resourceVersion"):
            if field in metadata and metadata[field] != stored["metadata"][field]:
                raise ConflictError("apply", f"{field} has changed", 409)
        changed = {**stored, **{k: v for k, v in manifest.items() if k in ("status", "data")}}
        changed["spec"] = {**stored.get("spec", {}), **manifest.get("spec", {})}
        return self.put(changed)

    def _merge(self, manifest: Manifest) -> Manifest:
        stored = self.objects[_address(manifest)]
        data = {**stored["data"], **manifest["data"]}
        return self.put({**stored, "data": {key: value for key, value in data.items() if value is not None}})

    def put(self, manifest: Manifest) -> Manifest:
        """Stores an object under a new version, and under a new generation if its spec has changed."""
        before = self.objects.get(_address(manifest))
        if before and before["metadata"]["uid"] == manifest["metadata"]["uid"]:
            least = before["metadata"].get("generation", 1) + (before.get("spec") != manifest.get("spec"))
            generation = max(least, manifest["metadata"].get("generation", 1))
            manifest["metadata"] = {**manifest["metadata"], "generation": generation}
        manifest["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[_address(manifest)] = manifest
        return manifest

    def add(self, manifest: Manifest) -> None:
        """Creates an object as a user."""
        manifest = copy.deepcopy(manifest)
        del manifest["metadata"]["uid"]
        self._create(manifest)

    def of(self, kind: str) -> dict[str, Manifest]:
        """All objects of a kind, by name."""
        return {name: found for (of_kind, _, name), found in self.objects.items() if of_kind == kind}

    def run_pods(self, name: str) -> None:
        """Makes the Job's pods run."""
        self._job_status(name, {"active": 1, "ready": 1})

    def end_job(self, name: str, report: Report | None = None, code: int = 0) -> None:
        """Ends the Job's pod with a report and an exit code."""
        report = report or Report(reason=Reason.COMPLETED, artifact=artifact(f"d-{name}"))
        found = self.objects["Job", NAMESPACE, name]
        labels = {**found["spec"]["template"]["metadata"]["labels"], "batch.kubernetes.io/job-name": name}
        labels["batch.kubernetes.io/job-completion-index"] = "0"
        terminated = {"exitCode": code, "message": report.termination_message(), "finishedAt": rfc3339(NOW)}
        statuses = [{"name": "main", "state": {"terminated": terminated}}]
        self.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"{name}-0-x", "namespace": NAMESPACE, "labels": labels},
                "status": {"phase": "Failed" if code else "Succeeded", "containerStatuses": statuses},
            }
        )
        end = {"type": "Failed" if code else "Complete", "status": "True", "reason": "BackoffLimitExceeded"}
        self._job_status(name, {"conditions": [end]})

    def _job_status(self, name: str, status: dict[str, Any]) -> None:
        self.put({**self.objects["Job", NAMESPACE, name], "status": status})


def _address(manifest: Manifest) -> Address:
    return manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"]


def _selected(manifest: Manifest, fields: str) -> bool:
    for path, _, value in (part.partition("=") for part in fields.split(",") if part):
        found: Any = manifest
        for step in path.split("."):
            found = found.get(step, {})
        if found != value:
            return False
    return True
