"""One pass over one resource: observe, plan, write the status, then do the rest. The one place that tells the order."""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from time import perf_counter
from typing import Final
from uuid import uuid4

from hatchery_api.conditions import ConditionType, Reason, find_condition
from hatchery_api.status import RunStatus
from hatchery_operator.controller.event_manifest import event_manifest
from hatchery_operator.controller.namespace_policy import NamespacePolicy
from hatchery_operator.controller.observe import observe
from hatchery_operator.controller.refusals import Refusals
from hatchery_operator.diagnosis import why_rejected
from hatchery_operator.domain import (
    Diagnosis,
    Key,
    Manifest,
    Observed,
    Run,
    controller_uid,
    newest_attempt,
    stage_in_flight,
    summarize_job,
)
from hatchery_operator.errors import AlreadyExistsError, ApiError, ConflictError, GoneError, RefusedError
from hatchery_operator.kube import SPACING_SECONDS, Cache, Cluster, CrdCheck, Events
from hatchery_operator.planning import ChildRef, Plan, UserEvent, plan
from hatchery_operator.progress.tls import CaBundle
from hatchery_operator.settings import Settings
from hatchery_operator.telemetry import Metrics, ReconcileResult, add_log_context, set_log_context

LOG: Final = logging.getLogger(__name__)

STATUS_MANAGER: Final = "hatchery-status"
"""Field manager of the status."""

SUSPEND_MANAGER: Final = "hatchery-suspend"
"""Field manager of a Job's `suspend`, apart from the rest, which is never written twice."""

_INVALID: Final = 422


class Reconciler:
    """Reconciles resources by key; the work queue calls it, never twice at once for one key."""

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
        ca_bundle: CaBundle | None = None,
    ) -> None:
        """Takes its parts.

        Args:
            cluster: the API server.
            cache: what is known of the cluster.
            settings: the operator's settings.
            metrics: where passes are counted.
            crd_check: what is wrong with the served definitions.
            now: the clock.
            wake: puts a key on the work queue.
            ca_bundle: certificates with which pods verify the progress endpoint, if there is one.
        """
        self._cluster = cluster
        self._cache = cache
        self._settings = settings
        self._metrics = metrics
        self._crd_check = crd_check
        self._now = now
        self._wake = wake
        self._ca_bundle = ca_bundle
        self._refusals = Refusals()
        self._intents: dict[Key, tuple[str, Observed]] = {}
        self._events = Events(cluster)
        self._policy = NamespacePolicy(cluster, settings)
        self._started = now()

    async def __call__(self, key: Key) -> float | None:
        """One pass; returns the seconds after which to look again, if nothing happens before."""
        started = perf_counter()
        result: ReconcileResult = "error"
        set_log_context(**key._asdict(), reconcile=uuid4().hex[:8])
        try:
            requeue_after = await self._pass(key)
            result = "success"
        except (ConflictError, GoneError) as error:
            result = "conflict" if isinstance(error, ConflictError) else "gone"
            if await self._read_again(key):
                # the queue backs off: an object that somebody else writes all the time must not keep us busy
                raise
            requeue_after = None
        finally:
            self._metrics.reconciled(key.kind, result, perf_counter() - started)
        return requeue_after

    async def _pass(self, key: Key) -> float | None:
        run = self._cache.get(key)
        if run is None:
            self._forget(key)
            return None
        add_log_context(uid=run.uid, attempt=newest_attempt(run.status))
        seen = self._seen_before(run) or await self._observe(run)
        decided = plan(run, seen, self._settings)
        add_log_context(uid=run.uid, attempt=newest_attempt(decided.status))
        if decided.status == run.status:
            return await self._carry_out(run, decided)
        run = await self._write_status(run, decided.status)
        for note in decided.user_events:
            await self._post(run, note)
        if decided.creates:
            # at the end of the line: with a thousand resources at once, each has its first status before any has a Job
            self._intents[key] = (run.resource_version, seen)
            return 0.0
        requeue_after = await self._carry_out(run, decided)
        # what follows from a new status is seen by another pass, unless the plan says when that is worth it
        return SPACING_SECONDS if requeue_after is None else requeue_after

    def _seen_before(self, run: Run) -> Observed | None:
        """What was observed just before the last status was written; it still holds if that status is the newest."""
        version, seen = self._intents.pop(run.key, ("", None))
        return seen if version == run.resource_version else None

    async def _carry_out(self, run: Run, decided: Plan) -> float | None:
        """Does all of a plan but its status; returns when to look again."""
        key = run.key
        wait_seconds = self._refusals.wait_seconds(key, self._now()) if decided.creates else 0.0
        refusal = await self._act(run, replace(decided, creates=()) if wait_seconds else decided)
        if wait_seconds:
            return wait_seconds
        if self._refusals.is_news(run.key, refusal, self._now()) and refusal:
            LOG.warning("child refused", extra={"reason": refusal.reason, "details": refusal.message})
            # another pass at once, so that conditions say so; the child itself is tried again later
            return 0.0
        return decided.requeue_after

    async def _observe(self, run: Run) -> Observed:
        seen = await observe(run, self._cache, self._cluster, self._events, self._now())
        since, refusal = self._refusals.of(run.key)
        outdated = self._crd_check.problem(run.kind.kind)
        return replace(
            seen,
            refusal=seen.refusal or refusal,
            refused_since=since,
            outdated=outdated,
            listening_since=self._started,
        )

    def _forget(self, key: Key) -> None:
        self._intents.pop(key, None)
        self._refusals.forget(key)
        if not any(other.namespace == key.namespace for other in self._cache.all_keys()):
            # with its last run the namespace itself may have gone; one of the same name starts with nothing in it
            self._policy.forget(key.namespace)
            if self._ca_bundle:
                self._ca_bundle.forget(key.namespace)

    async def _read_again(self, key: Key) -> bool:
        """Takes a resource from the API server into the cache; returns whether it exists."""
        manifest = await self._cluster.get(key.kind, key.namespace, key.name)
        self._wake_all(self._cache.put(manifest) if manifest else self._cache.remove(key))
        if manifest is None:
            self._forget(key)
        return manifest is not None

    def _wake_all(self, keys: frozenset[Key]) -> None:
        for key in keys:
            self._wake(key)

    async def _write_status(self, run: Run, status: RunStatus) -> Run:
        """Writes the status, and only to the version it was planned from."""
        # replaced as a whole: applied, it could not remove progress, which has another field manager
        written = await self._cluster.replace(run.with_status(status.wire()), STATUS_MANAGER, "status")
        self._wake_all(self._cache.put(written) - {run.key})
        said = find_condition(status.conditions, ConditionType.SUCCEEDED)
        LOG.info("status written", extra={"reason": said.reason if said else "", "attempts": status.attempts})
        return replace(run, status=status, resource_version=written["metadata"]["resourceVersion"])

    async def _act(self, run: Run, decided: Plan) -> Diagnosis | None:
        """Does what is beside the status; returns why a child cannot be made."""
        for child in decided.deletes:
            await self._delete(run, child)
        for child, suspend in decided.suspends:
            await self._suspend(run, child, suspend=suspend)
        try:
            if self._ca_bundle and (decided.creates or stage_in_flight(decided.status)):
                await self._ca_bundle.ensure(run.namespace)
            if decided.creates:
                await self._policy.ensure(run.namespace)
            for manifest in decided.creates:
                await self._create(run, manifest)
        except RefusedError as error:
            if error.status == _INVALID:
                return Diagnosis(Reason.INVALID_SPEC, f"the API server refuses a child: {error.message}")
            return why_rejected(error.message, run.spec_paths())
        except _ForeignError as error:
            return Diagnosis(Reason.NAME_CONFLICT, str(error))
        return None

    async def _create(self, run: Run, manifest: Manifest) -> None:
        """Creates a child. One that exists must be ours: nothing of somebody else's is ever changed or adopted."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        try:
            created = await self._cluster.create(manifest)
        except AlreadyExistsError as error:
            found = await self._cluster.get(kind, run.namespace, name)
            if found is None or controller_uid(found) != run.uid:
                raise _ForeignError(kind, name) from error
            created = found
        else:
            LOG.info("child created", extra={"child": f"{kind}/{name}"})
        if kind == "Job" and (job := summarize_job(created)):
            self._cache.put_job(job)

    async def _delete(self, run: Run, child: ChildRef) -> None:
        """Deletes a child; one that is known by its name only is looked at first, since the name may be another's."""
        uid = child.uid
        if uid is None:
            found = await self._cluster.get(child.kind, run.namespace, child.name)
            if found is None or controller_uid(found) != run.uid:
                return
            uid = found["metadata"]["uid"]
        marked = await self._cluster.delete(child.kind, run.namespace, child.name, uid, foreground=child.foreground)
        if marked and (job := summarize_job(marked)):
            self._cache.put_job(job)
        LOG.info("child deleted", extra={"child": f"{child.kind}/{child.name}"})

    async def _suspend(self, run: Run, child: ChildRef, *, suspend: bool) -> None:
        metadata = {"name": child.name, "namespace": run.namespace, "uid": child.uid}
        manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"suspend": suspend}}
        written = await self._cluster.apply(manifest, SUSPEND_MANAGER)
        if job := summarize_job(written):
            self._cache.put_job(job)
        LOG.info("Job suspended" if suspend else "Job resumed", extra={"child": f"Job/{child.name}"})

    async def _post(self, run: Run, note: UserEvent) -> None:
        """Posts an event; a lost one is no reason to do anything again."""
        try:
            await self._cluster.create(event_manifest(run, note, self._now()))
        except ApiError as error:
            LOG.warning("event lost", extra={"reason": note.reason, "details": str(error)})


class _ForeignError(Exception):
    """A child's name is taken."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(
            f"{kind} {name} exists and is not of this run: delete it; what is left of a deleted run goes by itself"
        )
