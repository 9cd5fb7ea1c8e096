"""From a stage's input to the objects that run it: Indexed Job and, for a gang, Service and NetworkPolicy; pure.

Several pods that are no gang share work without meeting: the Job is done when all of them are.
"""

from typing import Final

from hatchery_api.contract import (
    CLAIM_SCHEME,
    METRICS_PORT,
    PERMANENT,
    RENDEZVOUS_PORT,
    ExitCode,
    HubTarget,
    JobInput,
    Output,
)
from hatchery_api.placement import RunSpec
from hatchery_operator.domain.objects import SIZE_ANNOTATION, Manifest
from hatchery_operator.manifests.attempt import Attempt
from hatchery_operator.manifests.network import gang_policy, isolation
from hatchery_operator.manifests.pod import CONTAINER, INPUT_ANNOTATION, pod_spec
from hatchery_operator.settings import Settings
from hatchery_operator.stages.base import claim_of

MOST_INPUT_BYTES: Final = 128 * 1024
"""Longest input of a pod: half of what Kubernetes takes for all annotations of an object."""

GANG_RESTARTS: Final = 2
"""Times all pods may be replaced within one attempt: when one pod of a gang dies by itself, its peers often follow.
Pods lost to disruptions are not counted."""

QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
"""Label by which Kueue takes a Job into a queue."""


def manifests(work: Attempt, settings: Settings) -> tuple[Manifest, ...]:
    """All objects of an attempt in the order of their creation: the Job last, since its pods need the others."""
    return (*_gang(work, settings), _job(work, settings))


def input_problem(work: Attempt, settings: Settings) -> str | None:
    """What is wrong with the input of the pods, if anything is."""
    count = len(_input_text(work, settings).encode())
    if count <= MOST_INPUT_BYTES:
        return None
    return (
        f"the spec and its inputs are {count} bytes as JSON, {MOST_INPUT_BYTES} are the most pods take: shorten lists"
    )


def job_input(work: Attempt, settings: Settings) -> JobInput[RunSpec]:
    """What the pods are told."""
    hub, run = work.spec.hub, work.run
    return JobInput[RunSpec](
        kind=run.kind.kind,
        namespace=run.namespace,
        name=run.name,
        uid=run.uid,
        stage=work.stage,
        attempt=work.attempt,
        earlier_failure=work.earlier_failure,
        spec=work.spec,
        inputs=list(work.inputs),
        output=Output(root=f"{_storage_root(work.spec, settings)}/{run.namespace}/{run.kind.plural}/{run.name}"),
        hub=HubTarget(endpoint=(hub.endpoint if hub else None) or settings.hub_endpoint),
    )


def _storage_root(spec: RunSpec, settings: Settings) -> str:
    if spec.storage.root:
        return spec.storage.root.rstrip("/")
    return f"{CLAIM_SCHEME}{spec.storage.claim_name or settings.claim_name}"


def _claims(work: Attempt, settings: Settings) -> dict[str, bool]:
    """Claims the pods mount, and whether they may write there."""
    reads = [claim_of(url) for url in (*work.shape.urls, *(record.uri for record in work.inputs))]
    written = claim_of(_storage_root(work.spec, settings))
    return {name: name == written for name in sorted({name for name in (*reads, written) if name})}


def _metadata(work: Attempt) -> Manifest:
    return {
        "name": work.name,
        "namespace": work.run.namespace,
        "labels": work.labels,
        "ownerReferences": [work.run.owner_reference()],
    }


def _input_text(work: Attempt, settings: Settings) -> str:
    # absent and null are different things for a field with a default, so nulls are written out
    return job_input(work, settings).model_dump_json(by_alias=True, serialize_as_any=True)


def _gang(work: Attempt, settings: Settings) -> tuple[Manifest, ...]:
    """What lets several pods find and reach each other."""
    if not work.shape.is_gang:
        return ()
    selector = {"batch.kubernetes.io/job-name": work.name}
    policy = (gang_policy(_metadata(work), selector),) if settings.network_policies.enabled else ()
    return (_service(work, selector), *policy)


def _service(work: Attempt, selector: dict[str, str]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(work),
        "spec": {
            "clusterIP": "None",
            # workers look for the rendezvous before any of them is ready
            "publishNotReadyAddresses": True,
            "selector": selector,
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
        },
    }


def _job(work: Attempt, settings: Settings) -> Manifest:
    metadata, queue = _metadata(work), work.spec.placement.queue_name
    if queue:
        metadata["labels"] = {**metadata["labels"], QUEUE_LABEL: queue}
    if work.shape.size:
        metadata["annotations"] = {SIZE_ANNOTATION: work.shape.size}
    nodes, overrides = work.shape.nodes, work.spec.placement.pod_overrides
    spec: Manifest = {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "backoffLimit": GANG_RESTARTS * nodes if nodes > 1 else 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": failure_rules()},
        "template": {
            "metadata": {
                "labels": {**overrides.labels, **work.labels, **isolation(settings)},
                "annotations": {
                    **overrides.annotations,
                    INPUT_ANNOTATION: _input_text(work, settings),
                    **_scraping(),
                },
            },
            "spec": pod_spec(work, _claims(work, settings), settings),
        },
    }
    if queue:
        # the queue admits it; from now on this field is the queue's alone
        spec["suspend"] = True
    if work.shape.is_gang:
        # the artifact is complete when index 0 is; peers that hang afterwards must not hold the run
        spec["successPolicy"] = {"rules": [{"succeededIndexes": "0"}]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def failure_rules() -> list[Manifest]:
    """What the Job controller does when a pod fails, from the exit codes; the first rule that matches counts."""

    def _on_exit(action: str, *codes: ExitCode) -> Manifest:
        values = sorted(int(code) for code in codes)
        return {"action": action, "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": values}}

    return [
        _on_exit("FailJob", *PERMANENT),
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        _on_exit("Ignore", ExitCode.INTERRUPTED),
    ]


def _scraping() -> dict[str, str]:
    return {"prometheus.io/scrape": "true", "prometheus.io/port": str(METRICS_PORT), "prometheus.io/path": "/metrics"}
