"""Reads everything a plan depends on into `Observed`, so that planning itself is pure."""

from dataclasses import replace
from datetime import datetime

from hatchery_operator.diagnosis import needs_events, why_rejected
from hatchery_operator.domain import backoff
from hatchery_operator.domain.job_summary import summarize_job
from hatchery_operator.domain.labels import JOB_NAME_LABEL, UID_LABEL
from hatchery_operator.domain.objects import (
    Diagnosis,
    JobSummary,
    Key,
    Manifest,
    Observed,
    Run,
    parse_time,
    stage_in_flight,
)
from hatchery_operator.domain.spec_paths import SpecPaths
from hatchery_operator.kube import Cache, Cluster, Events
from hatchery_operator.stages import references


async def observe(run: Run, cache: Cache, cluster: Cluster, events: Events, now: datetime) -> Observed:
    """Observes one resource: usually from the cache alone, without a request."""
    observed = Observed(now, cache.jobs_of(run.uid), _references(run, cache))
    stage = None if run.status.completion_time else stage_in_flight(run.status)
    if not stage or not stage.job:
        return observed
    job = observed.jobs.get(stage.job) or await _confirm_absence(run, stage.job, cache, cluster)
    if not job:
        # pods outlive a deleted Job for their grace period
        return replace(observed, pods=await _pods(cluster, run.namespace, f"{UID_LABEL}={run.uid}"))
    observed = replace(observed, jobs={**observed.jobs, job.name: job})
    if job.end:
        return replace(observed, pods=await _pods_of(job, cluster))
    return await _why_not_ready(observed, run, job, cluster, events) if _is_stuck(job, now) else observed


async def _why_not_ready(observed: Observed, run: Run, job: JobSummary, cluster: Cluster, events: Events) -> Observed:
    """Reads what explains why pods do not run, and nothing that cannot exist."""
    pods = await _pods_of(job, cluster) if job.active or job.terminating else ()
    silent = next((pod for pod in pods if needs_events(pod)), None)
    return replace(
        observed,
        pods=pods,
        events=await events.of_pod(silent) if silent else (),
        refusal=await _refusal(observed, run, job, pods, events) if job.active < job.pods else None,
    )


async def _confirm_absence(run: Run, name: str, cache: Cache, cluster: Cluster) -> JobSummary | None:
    """Reads a Job that the cache lacks: only the API server can confirm that it is absent rather than too new."""
    manifest = await cluster.get("Job", run.namespace, name)
    job = summarize_job(manifest) if manifest else None
    if job is None or job.owner_uid != run.uid:
        return None
    cache.put_job(job)
    return job


def _is_stuck(job: JobSummary, now: datetime) -> bool:
    """Whether pods of a Job should be running by now and are not."""
    if job.end or job.suspended or job.ready >= job.pods or job.deleting:
        return False
    return job.age_seconds(now) >= backoff.SETTLE_SECONDS


async def _pods_of(job: JobSummary, cluster: Cluster) -> tuple[Manifest, ...]:
    return await _pods(cluster, job.namespace, f"{UID_LABEL}={job.owner_uid},{JOB_NAME_LABEL}={job.name}")


async def _pods(cluster: Cluster, namespace: str, selector: str) -> tuple[Manifest, ...]:
    return tuple([pod async for pod in cluster.list("Pod", namespace, selector)])


async def _refusal(
    observed: Observed, run: Run, job: JobSummary, pods: tuple[Manifest, ...], events: Events
) -> Diagnosis | None:
    """Why the Job controller cannot create pods; None if it has created one since."""
    created = [job.since, *(pod["metadata"].get("creationTimestamp", job.since) for pod in pods)]
    event = await events.failed_create(job, max(map(parse_time, created)), observed.now)
    return why_rejected(event["message"], SpecPaths.of(run.namespace, run.spec)) if event else None


def _references(run: Run, cache: Cache) -> dict[Key, Run]:
    return {key: found for key in referenced_keys(run) if (found := cache.get(key)) and not found.deleting}


def referenced_keys(run: Run) -> frozenset[Key]:
    """The resources named in a resource's spec; empty for an invalid spec."""
    needs = references(run.kind.kind, run.spec) if run.spec else ()
    return frozenset(Key(need.kind, run.namespace, need.name) for need in needs)
