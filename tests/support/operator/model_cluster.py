"""A cluster that misbehaves as real ones do: late watches, lost responses, pods that outlive their Job, a slow controller.

`ModelCluster` is the API server, `play_*` are the other controllers and the kubelet. It checks at every single write what
must never happen, so a test that drives it needs no oracle of its own for that.
"""

import copy
from collections import defaultdict, deque
from typing import Any, Literal

from tests.support.operator.builders import NAMESPACE, artifact, finished, manifest
from tests.support.operator.fake_cluster import CrashError, FakeCluster

from hatchery_api.conditions import Reason
from hatchery_api.contract import ExitCode, Report
from hatchery_operator.domain.labels import ATTEMPT_LABEL
from hatchery_operator.domain.objects import Manifest, controller_uid
from hatchery_operator.errors import UnreachableError

Fault = Literal["none", "lost", "unanswered", "crash before", "crash after", "conflict"]
"""What becomes of a write: it never arrives, its answer is lost, the operator dies, somebody else writes first."""

Outcome = Literal["done", "no report", "error", "permanent", "interrupted"]
"""How a Job ends."""

CODES: dict[Outcome, int] = {
    "done": ExitCode.DONE,
    "no report": ExitCode.DONE,
    "error": ExitCode.RETRY,
    "permanent": ExitCode.SPEC_ERROR,
    "interrupted": ExitCode.INTERRUPTED,
}


class ModelCluster(FakeCluster):
    """Objects, the watches that tell of them in their own time, and a check of every write of the operator."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ""
        self.events: dict[str, deque[Manifest]] = {"runs": deque(), "jobs": deque()}
        """What the watches have not told yet."""
        self.fault: tuple[int, Fault] = (0, "none")
        """How many writes from now this happens."""
        self.created: dict[str, set[str]] = defaultdict(set)
        """Names of the Jobs ever created, by UID of their owner."""
        self.mishaps: dict[str, set[str]] = defaultdict(set)
        """UIDs of the Jobs that failed, or that somebody deleted, by UID of their owner."""
        self.successes: dict[str, set[str]] = defaultdict(set)
        """Names of the Jobs that were done, by UID of their owner."""

    # the API server

    def put(self, manifest: Manifest) -> Manifest:
        stored = super().put(manifest)
        self._tell("MODIFIED", stored)
        return stored

    def remove(self, kind: str, name: str) -> None:
        """Removes an object at once, whatever belongs to it."""
        gone = self.objects.pop((kind, NAMESPACE, name))
        self._tell("DELETED", {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(next(self._versions))}})

    def _tell(self, kind: str, stored: Manifest) -> None:
        stream = "jobs" if stored["kind"] == "Job" else "runs"
        if stored["kind"] == "Job" or stored["apiVersion"].startswith("hatchery"):
            self.events[stream].append({"type": kind, "object": copy.deepcopy(stored)})

    def _create(self, manifest: Manifest) -> Manifest:
        stored = super()._create(manifest)
        stored["metadata"]["creationTimestamp"] = self.clock
        return stored

    def _write(self, verb: str, manifest: Manifest, effect: Any) -> Manifest:
        left, fault = self.fault
        if fault == "none" or left or manifest["kind"] == "Event":
            if manifest["kind"] != "Event":
                self.fault = (left - 1, fault)
            return self._checked(verb, manifest, effect)
        self.fault = (0, "none")
        if fault == "lost":
            raise UnreachableError(verb, "no answer")
        if fault == "crash before":
            raise CrashError
        if fault == "conflict":
            self._touch(manifest)
        written = self._checked(verb, manifest, effect)
        if fault == "unanswered":
            raise UnreachableError(verb, "no answer")
        if fault == "crash after":
            raise CrashError
        return written

    def _checked(self, verb: str, manifest: Manifest, effect: Any) -> Manifest:
        before = copy.deepcopy(self.of_address(manifest))
        written = super()._write(verb, manifest, effect)
        if manifest["kind"] == "Job" and verb == "create":
            self._check_new_job(written)
        if verb == "status":
            assert before is not None
            self._check_status(before, written)
        return written

    def of_address(self, manifest: Manifest) -> Manifest | None:
        """The stored object with a manifest's kind and name."""
        return self.objects.get((manifest["kind"], NAMESPACE, manifest["metadata"]["name"]))

    def _touch(self, manifest: Manifest) -> None:
        """Somebody else changes the object that is about to be written."""
        found = self.of_address(manifest)
        if found is not None and manifest["kind"] != "Job":
            self.put(found)

    async def delete(
        self, kind: str, namespace: str, name: str, uid: str | None = None, *, foreground: bool = False
    ) -> Manifest | None:
        found = self.objects.get((kind, namespace, name))
        if found is None or uid not in (None, found["metadata"]["uid"]):
            return None
        if kind != "Job":
            await super().delete(kind, namespace, name, uid)
            return None
        return self._write(
            "delete", found, lambda job: self._delete_job(job["metadata"]["name"], foreground=foreground)
        )

    def _delete_job(self, name: str, *, foreground: bool) -> Manifest:
        """What the API server and the garbage collector do at once."""
        job = copy.deepcopy(self.objects["Job", NAMESPACE, name])
        for pod in self.pods_of(job):
            self._terminate(pod)
        if foreground:
            job["metadata"].setdefault("deletionTimestamp", self.clock)
            return self.put(job)
        self.remove("Job", name)
        return job

    # what must never happen

    def _check_new_job(self, job: Manifest) -> None:
        name, owner_uid = job["metadata"]["name"], controller_uid(job)
        assert owner_uid
        self.created[owner_uid].add(name)
        live = [n for n, other in self.of("Job").items() if controller_uid(other) == owner_uid and not _end(other)]
        assert live == [name], f"two live Jobs of one run: {live}"
        others = [p for p in self.pods_of_run(owner_uid) if p["status"]["phase"] == "Running"]
        assert not others, f"{name} is created while pods of an earlier Job run: {[_name(p) for p in others]}"
        run = next((one for one in self.runs().values() if one["metadata"]["uid"] == owner_uid), None)
        if run is not None:  # else the garbage collector takes it
            named = {stage.get("job"): stage for stage in run.get("status", {}).get("stages", [])}
            assert name in named, f"{name} is created before the status names it"
            assert "completionTime" not in run["status"], f"{name} is created for a finished run"
            assert named[name]["attempt"] == int(job["metadata"]["labels"][ATTEMPT_LABEL])

    def _check_status(self, old: Manifest, new: Manifest) -> None:
        before, after, uid = old.get("status", {}), new["status"], new["metadata"]["uid"]
        if "completionTime" in before:
            for field in ("completionTime", "attempts", "failures", "artifact", "stages"):
                assert before.get(field) == after.get(field), f"the end is not latched: {field}"
        started = after.get("attempts", 0) - before.get("attempts", 0)
        assert started in (0, 1), "attempts are counted one by one"
        if started:
            most = new["spec"].get("retry", {}).get("maxAttempts", 3)
            stage = next(s for s in after["stages"] if s["state"] != "Succeeded")
            assert stage["attempt"] <= most, "an attempt beyond the budget"
        assert after.get("failures", 0) <= len(self.mishaps[uid]), "a failure nobody had"
        for stage in after.get("stages", []):
            assert stage["state"] != "Succeeded" or stage["job"] in self.successes[uid], "a success nobody had"

    # the others

    def add_finished(self, kind: str, name: str) -> None:
        """A resource that has succeeded, and whose children are gone."""
        run = finished(kind, name)
        self.add(manifest(kind, name))
        stored = self.of_address({"kind": kind, "metadata": {"name": name}})
        assert stored
        uid = stored["metadata"]["uid"]
        self.created[uid] = self.successes[uid] = {stage.job for stage in run.status.stages if stage.job}
        self.put({**stored, "status": run.status.wire()})

    def finish_first_stage(self, kind: str, name: str) -> None:
        """A resource whose first stage is done and whose second one is to begin."""
        stored = self.of_address({"kind": kind, "metadata": {"name": name}})
        assert stored
        first, second = finished(kind, name).status.stages
        done = first.model_copy(update={"artifact": artifact()})
        stages = [done.wire(), {"name": second.name, "state": "Waiting", "attempt": 0}]
        self.created[stored["metadata"]["uid"]] = {str(first.job)}
        self.successes[stored["metadata"]["uid"]] = {str(first.job)}
        status = {"stages": stages, "attempts": 1, "startTime": self.clock, "currentStage": second.name}
        self.put({**stored, "status": status})

    def running_pods(self) -> dict[str, Manifest]:
        """Pods that work and may go on."""
        return {n: p for n, p in self.of("Pod").items() if p["status"]["phase"] == "Running" and not _is_ending(p)}

    def runs(self) -> dict[str, Manifest]:
        """All resources of ours, by name."""
        return {name: one for (_, _, name), one in self.objects.items() if one["apiVersion"].startswith("hatchery")}

    def pods_of(self, job: Manifest) -> list[Manifest]:
        """Pods of a Job."""
        return [pod for pod in self.of("Pod").values() if controller_uid(pod) == job["metadata"]["uid"]]

    def pods_of_run(self, uid: str) -> list[Manifest]:
        """Pods of all Jobs of a run."""
        return [p for p in self.of("Pod").values() if p["metadata"]["labels"]["hatchery.dev/uid"] == uid]

    def play_job_controller(self) -> None:
        """Makes pods, ends those of suspended Jobs, and keeps the Jobs' counts."""
        for job in list(self.of("Job").values()):
            if _end(job) or "deletionTimestamp" in job["metadata"] or "template" not in job["spec"]:
                continue
            pods = self.pods_of(job)
            if job["spec"].get("suspend"):
                for pod in pods:
                    self._terminate(pod)
            elif not any(map(_is_ending, pods)):
                for index in set(range(job["spec"]["completions"])) - {_index(pod) for pod in pods}:
                    self._make_pod(job, index)
            self._count(job)

    def _make_pod(self, job: Manifest, index: int) -> None:
        name = job["metadata"]["name"]
        labels = {
            **job["spec"]["template"]["metadata"]["labels"],
            "batch.kubernetes.io/job-name": name,
            "batch.kubernetes.io/job-completion-index": str(index),
        }
        owner = {"uid": job["metadata"]["uid"], "controller": True}
        pod = f"{name}-{index}-{next(self._uids)}"
        metadata = {
            "name": pod,
            "namespace": NAMESPACE,
            "uid": f"u-{pod}",
            "labels": labels,
            "ownerReferences": [owner],
        }
        self.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {"phase": "Running"}})

    def _terminate(self, pod: Manifest) -> None:
        if not _is_ending(pod):
            self.put({**pod, "metadata": {**pod["metadata"], "deletionTimestamp": self.clock}})

    def _count(self, job: Manifest) -> None:
        pods = self.pods_of(job)
        running, ending = sum(not _is_ending(p) for p in pods), sum(map(_is_ending, pods))
        status = {"active": running, "ready": running, "terminating": ending}
        if job.get("status") != status:
            self.put({**job, "status": status})

    def play_kubelet(self) -> None:
        """Pods that were asked to end have done so; then foreground deletions are over."""
        for name, pod in self.of("Pod").items():
            if _is_ending(pod):
                self.remove("Pod", name)
        for name, job in self.of("Job").items():
            if "deletionTimestamp" in job["metadata"] and not self.pods_of(job):
                self.remove("Job", name)
        self.play_job_controller()

    def play_garbage_collector(self) -> None:
        """Removes what belonged to something that is gone."""
        owners = {one["metadata"]["uid"] for one in self.objects.values()}
        for (kind, _, name), one in list(self.objects.items()):
            owner = controller_uid(one)
            if owner is None or owner in owners:
                continue
            if kind == "Job":
                self._delete_job(name, foreground=False)
            elif kind == "Pod":
                self._terminate(one)
            else:
                self.remove(kind, name)

    def end(self, name: str, outcome: Outcome) -> None:
        """A Job's pods end, and then the Job."""
        job = self.objects["Job", NAMESPACE, name]
        owner_uid = controller_uid(job)
        assert owner_uid
        code = CODES[outcome]
        (self.successes if outcome == "done" else self.mishaps)[owner_uid].add(
            name if outcome == "done" else job["metadata"]["uid"]
        )
        report = Report(reason=Reason.STORAGE_ERROR, message="full")
        if outcome == "done":
            report = Report(reason=Reason.COMPLETED, artifact=artifact(f"d-{job['metadata']['uid']}"))
        message = "" if outcome == "no report" else report.termination_message()
        for pod in self.pods_of(job):
            terminated = {"exitCode": code, "message": message, "finishedAt": self.clock}
            statuses = [{"name": "main", "state": {"terminated": terminated}}]
            self.put({**pod, "status": {"phase": "Failed" if code else "Succeeded", "containerStatuses": statuses}})
        end = {"type": "Failed" if code else "Complete", "status": "True", "reason": "BackoffLimitExceeded"}
        if outcome == "permanent":
            end["reason"] = "PodFailurePolicy"
        self.put({**job, "status": {"conditions": [end]}})

    def delete_by_hand(self, name: str, *, foreground: bool) -> None:
        """A user deletes a Job."""
        job = self.objects["Job", NAMESPACE, name]
        if owner_uid := controller_uid(job):
            self.mishaps[owner_uid].add(job["metadata"]["uid"])
        self._delete_job(name, foreground=foreground)

    def evict(self, pod: Manifest) -> None:
        """A pod must leave its node."""
        target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
        self._terminate({**pod, "status": {**pod["status"], "conditions": [target]}})
        self.play_job_controller()


def _name(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def _index(pod: Manifest) -> int:
    return int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])


def _is_ending(pod: Manifest) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _end(job: Manifest) -> str | None:
    """How a Job has ended, if it has."""
    return next((c["type"] for c in job.get("status", {}).get("conditions", [])), None)
