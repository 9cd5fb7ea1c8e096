"""Reconciles one resource: observe, plan, write the status, then change its children; the order is fixed here alone."""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from time import perf_counter
from typing import Any, Final, Protocol
from uuid import uuid4

from hatchery_api.base import API_VERSION
from hatchery_api.conditions import ConditionType, Reason, find_condition
from hatchery_api.status import RunStatus
from hatchery_operator.controller.child_backoff import ChildBackoff
from hatchery_operator.controller.observe import observe
from hatchery_operator.diagnosis import why_rejected
from hatchery_operator.domain.attempt import Attempt
from hatchery_operator.domain.job_summary import summarize_job
from hatchery_operator.domain.labels import MANAGER
from hatchery_operator.domain.objects import (
    Diagnosis,
    Key,
    Manifest,
    Observed,
    Run,
    controller_uid,
    newest_attempt,
    rfc3339,
    stage_in_flight,
)
from hatchery_operator.domain.spec_paths import SpecPaths
from hatchery_operator.errors import AlreadyExistsError, ApiError, ConflictError, GoneError, RefusedError
from hatchery_operator.kube import SPACING_SECONDS, ApplyOnce, Cache, Cluster, CrdCheck, Events
from hatchery_operator.manifests import manifests, runs_policy
from hatchery_operator.planning import ChildRef, Plan, UserEvent, plan
from hatchery_operator.settings import Settings
from hatchery_operator.telemetry import Metrics, ReconcileResult, add_log_context, set_log_context

LOG: Final = logging.getLogger(__name__)

STATUS_MANAGER: Final = "hatchery-status"
"""Field manager of the status."""

SUSPEND_MANAGER: Final = "hatchery-suspend"
"""Field manager of a Job's `suspend`; the rest of a Job is written once."""

EVENT_CHARACTERS: Final = 1024
"""Longest event message the API server accepts."""

_INVALID: Final = 422


class NamespacedBundle(Protocol):
    """The CA bundle with which pods verify the progress endpoint."""

    async def ensure(self, namespace: str) -> None:
        """Writes the bundle to a namespace unless it is there."""

    def forget(self, namespace: str) -> None:
        """Forgets a namespace that may be gone."""


class Reconciler:
    """Reconciles resources by key. The work queue calls it, never concurrently for one key."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        settings: Settings,
        *,
        metrics: Metrics,
        crd_check: CrdCheck,
        now: Callable[[], datetime],
        wake: Callable[[Key], None],
        ca_bundle: NamespacedBundle | None = None,
    ) -> None:
        """Creates a reconciler for one term of the leader.

        Args:
            cluster: the API server.
            cache: resources and Jobs.
            settings: the operator's settings.
            metrics: counts reconciles.
            crd_check: knows outdated definitions.
            now: the wall clock.
            wake: puts a key on the work queue.
            ca_bundle: CA bundle of the progress endpoint; None without live progress.
        """
        self._cluster = cluster
        self._cache = cache
        self._settings = settings
        self._metrics = metrics
        self._crd_check = crd_check
        self._now = now
        self._wake = wake
        self._ca_bundle = ca_bundle
        self._backoff = ChildBackoff()
        self._intents: dict[Key, tuple[str, Observed]] = {}
        self._events = Events(cluster)
        self._network_policies = ApplyOnce(cluster)
        self._started = now()

    async def __call__(self, key: Key) -> float | None:
        """Reconciles a resource once; returns the seconds until the next time, None to wait for a change."""
        started = perf_counter()
        result: ReconcileResult = "error"
        set_log_context(**key._asdict(), reconcile=uuid4().hex[:8])
        try:
            requeue_after = await self._reconcile(key)
            result = "success"
        except (ConflictError, GoneError) as error:
            result = "conflict" if isinstance(error, ConflictError) else "gone"
            if await self._refresh(key):
                # the queue backs off: an object that another client writes constantly must not keep us busy
                raise
            requeue_after = None
        finally:
            self._metrics.reconciled(key.kind, result, perf_counter() - started)
        return requeue_after

    async def _reconcile(self, key: Key) -> float | None:
        run = self._cache.get(key)
        if run is None:
            self._forget(key)
            return None
        add_log_context(uid=run.uid, attempt=newest_attempt(run.status))
        observed = self._observed_before(run) or await self._observe(run)
        decision = plan(run, observed, self._settings)
        add_log_context(uid=run.uid, attempt=newest_attempt(decision.status))
        if decision.status == run.status:
            return await self._apply(run, decision)
        run = await self._write_status(run, decision.status)
        for event in decision.user_events:
            await self._post_event(run, event)
        if decision.attempt:
            # at the tail of the queue: of a thousand new resources each gets its first status before any gets a Job
            self._intents[key] = (run.resource_version, observed)
            return 0.0
        requeue_after = await self._apply(run, decision)
        # another reconcile handles what follows from the new status, unless the plan sets a time for that
        return SPACING_SECONDS if requeue_after is None else requeue_after

    def _observed_before(self, run: Run) -> Observed | None:
        """The observation behind the last status write; it still holds while that status is the latest."""
        version, observed = self._intents.pop(run.key, ("", None))
        return observed if version == run.resource_version else None

    async def _observe(self, run: Run) -> Observed:
        observed = await observe(run, self._cache, self._cluster, self._events, self._now())
        since, rejection = self._backoff.of(run.key)
        return replace(
            observed,
            refusal=observed.refusal or rejection,
            refused_since=since,
            outdated=self._crd_check.problem(run.kind.kind),
            listening_since=self._started,
        )

    async def _write_status(self, run: Run, status: RunStatus) -> Run:
        """Writes the status to the version it was planned from, and to no other."""
        # replaced as a whole: an apply could not remove progress, which has another field manager
        written = await self._cluster.replace(run.with_status(status.wire()), STATUS_MANAGER, "status")
        self._wake_all(self._cache.put(written) - {run.key})
        succeeded = find_condition(status.conditions, ConditionType.SUCCEEDED)
        reason = succeeded.reason if succeeded else ""
        LOG.info("status written", extra={"reason": reason, "attempts": status.attempts})
        return replace(run, status=status, resource_version=written["metadata"]["resourceVersion"])

    async def _apply(self, run: Run, decision: Plan) -> float | None:
        """Carries out everything of a plan except its status; returns the seconds until the next reconcile."""
        wait_seconds = self._backoff.wait_seconds(run.key, self._now()) if decision.attempt else 0.0
        rejection = await self._change_children(run, replace(decision, attempt=None) if wait_seconds else decision)
        if wait_seconds:
            return wait_seconds
        if self._backoff.record(run.key, rejection, self._now()) and rejection:
            LOG.warning("child rejected", extra={"reason": rejection.reason, "details": rejection.message})
            # reconcile again so that the conditions name the reason; creating the child backs off
            return 0.0
        return decision.requeue_after

    async def _change_children(self, run: Run, decision: Plan) -> Diagnosis | None:
        """Deletes, suspends and creates children; returns why a child cannot be created."""
        for child in decision.deletes:
            await self._delete(run, child)
        for child, suspend in decision.suspends:
            await self._suspend(run, child, suspend=suspend)
        try:
            if self._ca_bundle and (decision.attempt or stage_in_flight(decision.status)):
                await self._ca_bundle.ensure(run.namespace)
            if decision.attempt:
                await self._create_attempt(run, decision.attempt)
        except RefusedError as error:
            if error.status == _INVALID:
                return Diagnosis(Reason.INVALID_SPEC, f"the API server rejects a child: {error.message}")
            return why_rejected(error.message, SpecPaths.of(run.namespace, run.spec))
        except _NameTakenError as error:
            return Diagnosis(Reason.NAME_CONFLICT, str(error))
        return None

    async def _create_attempt(self, run: Run, attempt: Attempt) -> None:
        if self._settings.network_policies.enabled:
            # before any pod of the namespace starts
            await self._network_policies.ensure(runs_policy(run.namespace, self._settings))
        for manifest in manifests(attempt, self._settings):
            await self._create(run, manifest)

    async def _create(self, run: Run, manifest: Manifest) -> None:
        """Creates a child; an existing one must be ours, since nobody else's object is ever changed or adopted."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        try:
            created = await self._cluster.create(manifest)
        except AlreadyExistsError as error:
            found = await self._cluster.get(kind, run.namespace, name)
            if found is None or controller_uid(found) != run.uid:
                raise _NameTakenError(kind, name) from error
            created = found
        else:
            LOG.info("child created", extra={"child": f"{kind}/{name}"})
        self._cache_job(created)

    async def _delete(self, run: Run, child: ChildRef) -> None:
        """Deletes a child; reads one known only by its name first, since the name may be another owner's."""
        uid = child.uid
        if uid is None:
            found = await self._cluster.get(child.kind, run.namespace, child.name)
            if found is None or controller_uid(found) != run.uid:
                return
            uid = found["metadata"]["uid"]
        marked = await self._cluster.delete(child.kind, run.namespace, child.name, uid, foreground=child.foreground)
        if marked:
            self._cache_job(marked)
        LOG.info("child deleted", extra={"child": f"{child.kind}/{child.name}"})

    async def _suspend(self, run: Run, child: ChildRef, *, suspend: bool) -> None:
        metadata = {"name": child.name, "namespace": run.namespace, "uid": child.uid}
        manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"suspend": suspend}}
        self._cache_job(await self._cluster.apply(manifest, SUSPEND_MANAGER))
        LOG.info("Job suspended" if suspend else "Job resumed", extra={"child": f"Job/{child.name}"})

    def _cache_job(self, manifest: Manifest) -> None:
        if manifest["kind"] == "Job" and (job := summarize_job(manifest)):
            self._cache.put_job(job)

    async def _post_event(self, run: Run, event: UserEvent) -> None:
        """Posts an event; a lost one is not posted again."""
        try:
            await self._cluster.create(event_manifest(run, event, self._now()))
        except ApiError as error:
            LOG.warning("event lost", extra={"reason": event.reason, "details": str(error)})

    async def _refresh(self, key: Key) -> bool:
        """Reads a resource from the API server into the cache; returns whether it exists."""
        manifest = await self._cluster.get(key.kind, key.namespace, key.name)
        self._wake_all(self._cache.put(manifest) if manifest else self._cache.remove(key))
        if manifest is None:
            self._forget(key)
        return manifest is not None

    def _wake_all(self, keys: frozenset[Key]) -> None:
        for key in keys:
            self._wake(key)

    def _forget(self, key: Key) -> None:
        self._intents.pop(key, None)
        self._backoff.forget(key)
        if not any(other.namespace == key.namespace for other in self._cache.all_keys()):
            # the namespace may have gone with its last run; one of the same name starts empty
            self._network_policies.forget(key.namespace)
            if self._ca_bundle:
                self._ca_bundle.forget(key.namespace)


def event_manifest(run: Run, event: UserEvent, now: datetime) -> Manifest:
    """The Event that tells users what happened to a resource; its name is unique."""
    involved: dict[str, Any] = {"apiVersion": API_VERSION, "kind": run.kind.kind, "uid": run.uid}
    involved |= {"namespace": run.namespace, "name": run.name}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{run.name}.{uuid4().hex[:16]}", "namespace": run.namespace},
        "involvedObject": involved,
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:EVENT_CHARACTERS],
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "firstTimestamp": rfc3339(now),
        "lastTimestamp": rfc3339(now),
        "count": 1,
    }


class _NameTakenError(Exception):
    """A child's name belongs to somebody else's object."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(
            f"{kind} {name} exists but does not belong to this run: delete it; children of a deleted run are removed "
            "automatically"
        )
