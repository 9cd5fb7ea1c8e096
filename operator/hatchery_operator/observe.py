"""From the cluster to `Observed`: all that a plan is made from, read once, so that planning itself is pure."""

from datetime import datetime
from typing import Final

from hatchery_operator.cache import Cache
from hatchery_operator.cluster import EVENTS, JOBS, PODS, Cluster
from hatchery_operator.objects import JobSummary, Key, Manifest, Run, parse_time, summarize_job
from hatchery_operator.observed import Observed, stage_in_flight
from hatchery_operator.pods import Problem, refused
from hatchery_operator.progress_route import UID_LABEL
from hatchery_operator.stages.registry import references

SETTLE_SECONDS: Final = 5.0
"""Age of a Job from which on it is asked why pods of it do not run."""

JOB_NAME_LABEL: Final = "batch.kubernetes.io/job-name"
"""Label that the Job controller gives to pods."""


async def observe(run: Run, cache: Cache, cluster: Cluster, now: datetime) -> Observed:
    """Reads what matters for a resource; mostly from the cache, without a request."""
    jobs, pods, refusal = cache.jobs_of(run.uid), tuple[Manifest, ...](), None
    stage = None if run.status.completion_time else stage_in_flight(run.status)
    if stage and stage.job:
        job = jobs.get(stage.job) or await _confirm_absence(run, stage.job, cache, cluster)
        if job:
            jobs[job.name] = job
            pods = await _pods(job, cluster, now)
            if len(pods) < job.pods and _is_stuck(job, now):
                refusal = await _refusal(job, cluster)
    return Observed(now, jobs, _references(run, cache), pods, refusal)


async def _confirm_absence(run: Run, name: str, cache: Cache, cluster: Cluster) -> JobSummary | None:
    """A Job the cache does not know may be too new for it; only the API server knows that it is not there."""
    manifest = await cluster.get(JOBS, run.namespace, name)
    job = summarize_job(manifest) if manifest else None
    if job is None or job.owner_uid != run.uid:
        return None
    cache.put_job(job)
    return job


def _is_stuck(job: JobSummary, now: datetime) -> bool:
    """Whether all pods of a Job should run by now and some do not."""
    if job.end or job.suspended or job.ready >= job.pods or job.deleting:
        return False
    return (now - parse_time(job.since)).total_seconds() >= SETTLE_SECONDS


async def _pods(job: JobSummary, cluster: Cluster, now: datetime) -> tuple[Manifest, ...]:
    if not job.end and not _is_stuck(job, now):
        return ()
    selector = f"{UID_LABEL}={job.owner_uid},{JOB_NAME_LABEL}={job.name}"
    return tuple([pod async for pod in cluster.list(PODS, job.namespace, selector)])


async def _refusal(job: JobSummary, cluster: Cluster) -> Problem | None:
    fields = f"involvedObject.uid={job.uid},reason=FailedCreate"
    return refused([event async for event in cluster.list(EVENTS, job.namespace, fields=fields)])


def _references(run: Run, cache: Cache) -> dict[Key, Run]:
    if run.spec is None:
        return {}
    keys = {Key(need.kind, run.namespace, need.name) for need in references(run.kind.kind, run.spec)}
    return {key: found for key in keys if (found := cache.get(key)) and not found.deleting}
