"""Small training runs that are suspended, resized, evicted, preempted and drained on a real node, never charged for it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from huggingface_hub import HfApi
from kubernetes import client
from tests.support.kube.installation import TOKEN_SECRET
from tests.support.kube.kubectl import condition

LABEL = "hatchery.dev/name"
STEPS = 4000
"""Enough for all that happens to a run: a status is up to ten seconds old, in which a pod does a thousand steps."""
GRACE_SECONDS = 60
SMALL = {"requests": {"cpu": "100m", "memory": "512Mi"}}


def resource(kind, namespace, name, **spec):
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "hatchery.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def pretrain_run(namespace, hub, name="model", nodes=2):
    push = {"repo": f"e2e/{namespace}-{name}", "tokenSecret": {"name": TOKEN_SECRET}, "endpoint": hub.endpoint}
    return resource(
        "PretrainRun",
        namespace,
        name,
        hub=push,
        corpora=[{"corpusRef": {"name": "corpus"}}],
        tokenizerRef={"name": "tokenizer"},
        model={"size": "tiny", "overrides": {"layers": 1, "heads": 2, "hiddenSize": 32}},
        data={"sequenceLength": 64},
        schedule={"steps": STEPS, "warmupSteps": 5, "peakLr": 3e-3},
        # two micro-batches: their sum is the same to the last bit on one worker and on two
        batch={"sequences": 8, "perDevice": 4},
        parallelism={"nodes": nodes},
        checkpoint={"everySteps": 200, "gracePeriod": f"{GRACE_SECONDS}s", "pushEvery": False},
        evaluate={"everySteps": 10_000, "batches": 2},
        placement={"resources": SMALL},
    )


@pytest.fixture(scope="module")
def training(kube, namespace, hub) -> Callable[[str, Callable[[Any], object]], Any]:
    """A run that trains in two pods; gives a function that waits for the run."""
    library = "/opt/hatchery/python-stdlib"
    sources = [{"name": "stdlib", "files": {"urls": [f"{library}/{p}/**/*.py" for p in ("json", "asyncio", "email")]}}]
    kube.apply(
        resource("CorpusBuild", namespace, "corpus", sources=sources, split={"validation": 0.1}),
        resource("TokenizerBuild", namespace, "tokenizer", corpusRef={"name": "corpus"}, build={}, vocabSize=512),
        pretrain_run(namespace, hub),
    )

    def wait(what: str, until: Callable[[Any], object]) -> Any:
        try:
            return kube.wait("PretrainRun", namespace, "model", until, 240)
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from error

    return wait


def step(run) -> int:
    status = run.get("status", {})
    metrics = {m["name"]: m["value"] for m in (status.get("progress") or {}).get("metrics", [])}
    return int(metrics.get("done", 0)) if status.get("currentStage") == "train" else 0


def says(reason):
    return lambda run: condition(run, "Succeeded").get("reason") == reason


def trains(kube, namespace):
    """Whether the pods that are there now have reported updates: what earlier ones did may be written later."""

    def check(run) -> bool:
        if not says("Running")(run) or step(run) == 0:
            return False
        started = [pod.status.start_time for pod in pods(kube, namespace, run["metadata"]["name"])]
        return all(started) and datetime.fromisoformat(run["status"]["progress"]["updatedAt"]) > max(started)

    return check


def train_job(name):
    return f"{name}-train-a1"


def pods(kube, namespace, name="model"):
    selector = f"{LABEL}={name},batch.kubernetes.io/job-name={train_job(name)}"
    return kube.core.list_namespaced_pod(
        namespace, label_selector=selector, field_selector="status.phase=Running"
    ).items


def change(kube, namespace, **spec):
    kube.custom.patch_namespaced_custom_object(
        "hatchery.dev", "v1alpha1", namespace, "pretrainruns", "model", {"spec": spec}
    )


def weights(hub, repo) -> str:
    """sha256 of a pushed model's parameters."""
    [file] = HfApi(endpoint=hub.url, token=hub.token).get_paths_info(repo, "model.safetensors")
    return file.lfs.sha256


def uncharged(run) -> bool:
    status = run["status"]
    return (status["attempts"], status["failures"]) == (2, 0)


def test_a_run_outlasts_suspension_resize_eviction_and_a_kill_uncharged_and_unchanged(
    kube, namespace, hub, training
) -> None:
    training("it trains", trains(kube, namespace))

    begun = datetime.now(UTC)
    change(kube, namespace, suspend=True)
    training("suspended", says("Suspended"))
    assert (datetime.now(UTC) - begun).total_seconds() <= GRACE_SECONDS + 5
    assert pods(kube, namespace) == []
    change(kube, namespace, suspend=False)
    resumed = training("resumed", trains(kube, namespace))

    for nodes in (1, 2):
        change(kube, namespace, parallelism={"nodes": nodes})
        training("resizing", says("Resizing"))
        resumed = training(f"{nodes} nodes", trains(kube, namespace))
        assert kube.batch.read_namespaced_job(train_job("model"), namespace).spec.completions == nodes

    lost = resumed["status"]["disruptions"]
    [victim] = [name for pod in pods(kube, namespace) if (name := pod.metadata.name).startswith("model-train-a1-1-")]
    eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name=victim, namespace=namespace))
    kube.core.create_namespaced_pod_eviction(victim, namespace, eviction)
    evicted = training("the eviction is counted", lambda run: run["status"]["disruptions"] > lost)
    assert uncharged(evicted)

    training("met again", lambda run: len(pods(kube, namespace)) == 2 and trains(kube, namespace)(run))
    [victim] = [name for pod in pods(kube, namespace) if (name := pod.metadata.name).startswith("model-train-a1-0-")]
    kube.core.delete_namespaced_pod(victim, namespace, grace_period_seconds=0)  # SIGKILL: nothing is saved
    kube.wait_pod(
        namespace,
        f"{LABEL}=model,batch.kubernetes.io/job-name={train_job('model')},batch.kubernetes.io/job-completion-index=0",
        lambda pod: pod.metadata.name != victim and pod.status.phase == "Running",
    )

    final = kube.wait_succeeded("PretrainRun", namespace, "model", 400)
    assert uncharged(final)
    # pods that are lost before they met have saved nothing, so the last resume may be from where the one before began
    assert len(final["status"]["resumedFrom"]) >= 3
    assert final["status"]["resumedFrom"] == sorted(final["status"]["resumedFrom"])

    kube.apply(pretrain_run(namespace, hub, "undisturbed", nodes=1))
    undisturbed = kube.wait_succeeded("PretrainRun", namespace, "undisturbed", 400)
    assert final["status"]["loss"] == undisturbed["status"]["loss"]
    assert weights(hub, f"e2e/{namespace}-model") == weights(hub, f"e2e/{namespace}-undisturbed")


@pytest.fixture
def node(kube):
    """The node, open for pods again afterwards."""
    name = kube.core.list_node().items[0].metadata.name
    yield name
    kube.kubectl("uncordon", name)


def cpu(quantities) -> float:
    """Processors of some Kubernetes quantities."""
    return sum(float(q[:-1]) / 1000 if q.endswith("m") else float(q) for q in quantities)


def free_cpus(kube, node) -> float:
    """Processors of a node that no pod asks for."""
    there = kube.core.list_pod_for_all_namespaces(
        field_selector=f"spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed"
    ).items
    asked = [c.resources.requests or {} for pod in there for c in pod.spec.containers]
    total = kube.core.read_node(node).status.allocatable["cpu"]
    return cpu([total]) - cpu([requests["cpu"] for requests in asked if "cpu" in requests])


@pytest.fixture
def urgent(kube, namespace):
    """A PriorityClass above all runs."""
    name = f"{namespace}-urgent"
    kube.apply(
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 1000}
    )
    yield name
    kube.kubectl("delete", "priorityclass", name)


def urgent_pod(namespace, priority_class, image, cpus):
    """A pod that only takes place."""
    container = {
        "name": "main",
        "image": image,
        "command": ["python3", "-c", "import signal; signal.sigwait([signal.SIGTERM])"],
        "resources": {"requests": {"cpu": f"{round(cpus * 1000)}m"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "urgent", "namespace": namespace},
        "spec": {
            "priorityClassName": priority_class,
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        },
    }


def test_a_run_that_is_preempted_and_drained_goes_on_without_a_charge(
    kube, namespace, hub, images, node, urgent, training
) -> None:
    asked = 0.4
    run = pretrain_run(namespace, hub, "yields", nodes=1)
    run["spec"]["placement"] = {"resources": {"requests": {"cpu": f"{round(asked * 1000)}m", "memory": "512Mi"}}}
    kube.apply(run)

    def wait(until):
        return kube.wait("PretrainRun", namespace, "yields", until, 240)

    before = wait(trains(kube, namespace))
    kube.apply(urgent_pod(namespace, urgent, images["operator"], free_cpus(kube, node) + asked / 2))
    preempted = wait(lambda run: run["status"]["disruptions"] > before["status"]["disruptions"])
    assert uncharged(preempted)
    wait(says("Unschedulable"))
    assert kube.core.read_namespaced_pod("urgent", namespace).spec.node_name == node
    kube.kubectl("delete", "pod", "-n", namespace, "urgent")
    resumed = wait(trains(kube, namespace))

    selector = f"--pod-selector={LABEL}=yields"
    kube.kubectl("drain", node, selector, "--delete-emptydir-data", "--timeout=100s")
    drained = wait(lambda run: run["status"]["disruptions"] > resumed["status"]["disruptions"])
    assert uncharged(drained)
    wait(says("Unschedulable"))
    kube.kubectl("uncordon", node)
    final = kube.wait_succeeded("PretrainRun", namespace, "yields", 400)
    assert uncharged(final)
    assert len(final["status"]["resumedFrom"]) == 2
    assert final["status"]["step"] == STEPS
