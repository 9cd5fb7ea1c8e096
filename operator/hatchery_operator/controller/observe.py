"""From the cluster to `Observed`: all that a plan is made from, read once, so that planning itself is pure."""

from dataclasses import replace
from datetime import datetime

from hatchery_operator.diagnosis import needs_events, why_rejected
from hatchery_operator.domain import (
    JOB_NAME_LABEL,
    UID_LABEL,
    Diagnosis,
    JobSummary,
    Key,
    Manifest,
    Observed,
    Run,
    backoff,
    parse_time,
    stage_in_flight,
    summarize_job,
)
from hatchery_operator.kube import Cache, Cluster, Events
from hatchery_operator.stages import references


async def observe(run: Run, cache: Cache, cluster: Cluster, events: Events, now: datetime) -> Observed:
    """Reads what matters for a resource; mostly from the cache, without a request."""
    seen = Observed(now, cache.jobs_of(run.uid), _references(run, cache))
    stage = None if run.status.completion_time else stage_in_flight(run.status)
    if not stage or not stage.job:
        return seen
    job = seen.jobs.get(stage.job) or await _confirm_absence(run, stage.job, cache, cluster)
    if not job:
        # pods outlive a Job that was deleted, for as long as their grace period is
        return replace(seen, pods=await _pods(cluster, run.namespace, f"{UID_LABEL}={run.uid}"))
    seen = replace(seen, jobs={**seen.jobs, job.name: job})
    if job.end:
        return replace(seen, pods=await _pods_of(job, cluster))
    return await _why_not_ready(seen, run, job, cluster, events) if _is_stuck(job, now) else seen


async def _why_not_ready(seen: Observed, run: Run, job: JobSummary, cluster: Cluster, events: Events) -> Observed:
    """What says why pods do not run; what cannot be there is not asked for."""
    pods = await _pods_of(job, cluster) if job.active or job.terminating else ()
    silent = next((pod for pod in pods if needs_events(pod)), None)
    return replace(
        seen,
        pods=pods,
        events=await events.of_pod(silent) if silent else (),
        refusal=await _refusal(seen, run, job, pods, events) if job.active < job.pods else None,
    )


async def _confirm_absence(run: Run, name: str, cache: Cache, cluster: Cluster) -> JobSummary | None:
    """A Job the cache does not know may be too new for it; only the API server knows that it is not there."""
    manifest = await cluster.get("Job", run.namespace, name)
    job = summarize_job(manifest) if manifest else None
    if job is None or job.owner_uid != run.uid:
        return None
    cache.put_job(job)
    return job


def _is_stuck(job: JobSummary, now: datetime) -> bool:
    """Whether all pods of a Job should run by now and some do not."""
    if job.end or job.suspended or job.ready >= job.pods or job.deleting:
        return False
    return job.age_seconds(now) >= backoff.SETTLE_SECONDS


async def _pods_of(job: JobSummary, cluster: Cluster) -> tuple[Manifest, ...]:
    return await _pods(cluster, job.namespace, f"{UID_LABEL}={job.owner_uid},{JOB_NAME_LABEL}={job.name}")


async def _pods(cluster: Cluster, namespace: str, selector: str) -> tuple[Manifest, ...]:
    return tuple([pod async for pod in cluster.list("Pod", namespace, selector)])


async def _refusal(
    seen: Observed, run: Run, job: JobSummary, pods: tuple[Manifest, ...], events: Events
) -> Diagnosis | None:
    """Why the Job controller could not create a pod, unless it has created one since."""
    made = [job.since, *(pod["metadata"].get("creationTimestamp", job.since) for pod in pods)]
    event = await events.failed_create(job, max(map(parse_time, made)), seen.now)
    return why_rejected(event["message"], run.spec_paths()) if event else None


def _references(run: Run, cache: Cache) -> dict[Key, Run]:
    return {key: found for key in referenced_keys(run) if (found := cache.get(key)) and not found.deleting}


def referenced_keys(run: Run) -> frozenset[Key]:
    """The resources a resource's spec names; empty for a spec that does not validate."""
    needs = references(run.kind.kind, run.spec) if run.spec else ()
    return frozenset(Key(need.kind, run.namespace, need.name) for need in needs)
