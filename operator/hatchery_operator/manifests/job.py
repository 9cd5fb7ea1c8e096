"""The objects that run an attempt: an Indexed Job and, for a gang, a Service and a NetworkPolicy.

Several pods that are not a gang share the work without connecting to each other; the Job completes when all have.
"""

from typing import Final

from hatchery_api.contract import METRICS_PORT, PERMANENT, RENDEZVOUS_PORT, ExitCode
from hatchery_operator.domain.attempt import Attempt
from hatchery_operator.domain.labels import INPUT_ANNOTATION, JOB_NAME_LABEL, QUEUE_LABEL, SIZE_ANNOTATION
from hatchery_operator.domain.objects import Manifest
from hatchery_operator.domain.spec_paths import claim_of
from hatchery_operator.manifests.network import gang_policy, isolation
from hatchery_operator.manifests.pod import CONTAINER, pod_spec
from hatchery_operator.settings import Settings
from hatchery_operator.stages import pod_resources, processes

GANG_RESTARTS: Final = 2
"""Times all pods may be replaced within one attempt: when one pod of a gang fails, its peers often follow. Pods lost
to disruptions are not counted."""


def manifests(attempt: Attempt, settings: Settings) -> tuple[Manifest, ...]:
    """All objects of an attempt in creation order: the Job last, since its pods need the others."""
    return (*_gang(attempt, settings), _job(attempt, settings))


def _claims(attempt: Attempt, settings: Settings) -> dict[str, bool]:
    """Claims the pods mount, and whether the mount is writable."""
    reads = [claim_of(url) for url in (*attempt.shape.urls, *(record.uri for record in attempt.inputs))]
    written = claim_of(attempt.storage_root(settings.claim_name))
    return {name: name == written for name in sorted({name for name in (*reads, written) if name})}


def _metadata(attempt: Attempt) -> Manifest:
    return {
        "name": attempt.name,
        "namespace": attempt.run.namespace,
        "labels": attempt.labels,
        "ownerReferences": [attempt.run.owner_reference()],
    }


def _gang(attempt: Attempt, settings: Settings) -> tuple[Manifest, ...]:
    """The objects by which the pods of a gang find and reach each other."""
    if not attempt.shape.is_gang:
        return ()
    selector = {JOB_NAME_LABEL: attempt.name}
    policy = (gang_policy(_metadata(attempt), selector),) if settings.network_policies.enabled else ()
    return (_service(attempt, selector), *policy)


def _service(attempt: Attempt, selector: dict[str, str]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(attempt),
        "spec": {
            "clusterIP": "None",
            # workers look for the rendezvous before any of them is ready
            "publishNotReadyAddresses": True,
            "selector": selector,
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
        },
    }


def _job(attempt: Attempt, settings: Settings) -> Manifest:
    metadata, queue = _metadata(attempt), attempt.spec.placement.queue_name
    if queue:
        metadata["labels"] = {**metadata["labels"], QUEUE_LABEL: queue}
    if attempt.shape.size:
        metadata["annotations"] = {SIZE_ANNOTATION: attempt.shape.size}
    nodes, overrides = attempt.shape.nodes, attempt.spec.placement.pod_overrides
    resources = pod_resources(attempt.stage, attempt.spec, attempt.shape, settings)
    per_pod = processes(attempt.shape.processes, resources)
    spec: Manifest = {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "backoffLimit": GANG_RESTARTS * nodes if nodes > 1 else 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": failure_rules()},
        "template": {
            "metadata": {
                "labels": {**overrides.labels, **attempt.labels, **isolation(settings)},
                "annotations": {
                    **overrides.annotations,
                    INPUT_ANNOTATION: attempt.input_text(settings.claim_name, settings.hub_endpoint),
                    **_scraping(),
                },
            },
            "spec": pod_spec(attempt, resources, per_pod, _claims(attempt, settings), settings),
        },
    }
    if queue:
        # the queue admits it; from now on only the queue writes this field
        spec["suspend"] = True
    if attempt.shape.is_gang:
        # the artifact is complete when index 0 is; peers that hang afterwards must not hold the run
        spec["successPolicy"] = {"rules": [{"succeededIndexes": "0"}]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def failure_rules() -> list[Manifest]:
    """The Job's `podFailurePolicy`, from the exit codes; the first matching rule applies."""

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
