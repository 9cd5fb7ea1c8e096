"""Devices on a node that has none: it only says that it has, so the pods are scheduled by them and compute on processors."""

import json

import pytest
from tests.cluster.console import wait_for
from tests.support.kube.kubectl import condition, failed_because

GPU, SLICE = "nvidia.com/gpu", "nvidia.com/mig-1g.10gb"
ADVERTISED = {GPU: "4", SLICE: "2"}
LABEL = "hatchery.dev/name"
SMALL = {"cpu": "100m", "memory": "512Mi"}
STEPS = 600

WORKERS = """
import json, pathlib
found = []
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    command = (folder / "cmdline").read_bytes().split(b"\\0")
    if b"hatchery_jobs.pretrain.training.loop" in command and b"torch.distributed.run" not in command:
        found.append([one.split(b"=")[0].decode() for one in (folder / "environ").read_bytes().split(b"\\0")])
print(json.dumps(found))
"""
"""Prints the names of the environment variables of every worker in the container."""


def resource(kind, namespace, name, **spec):
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "hatchery.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def pretrain_run(namespace, name, *, nodes, limits, **parallelism):
    return resource(
        "PretrainRun",
        namespace,
        name,
        corpora=[{"corpusRef": {"name": "corpus"}}],
        tokenizerRef={"name": "tokenizer"},
        model={"size": "tiny", "overrides": {"layers": 1, "heads": 2, "hiddenSize": 32}},
        data={"sequenceLength": 64},
        schedule={"steps": STEPS, "warmupSteps": 5, "peakLr": 3e-3},
        checkpoint={"everySteps": 300},
        batch={"sequences": 8, "perDevice": 2},
        parallelism={"nodes": nodes, **parallelism},
        placement={"resources": {"requests": SMALL, "limits": limits}},
    )


@pytest.fixture(scope="module")
def node(cluster, kube):
    """The node, which says that it has devices."""
    if cluster.context:
        pytest.skip("HATCHERY_KUBECONTEXT names somebody's own cluster, whose nodes are not ours to change")
    [found] = kube.core.list_node().items
    name = found.metadata.name

    def advertise(devices):
        kube.kubectl(
            *("patch", "node", name, "--subresource=status", "--type=merge", "-p"),
            json.dumps({"status": {"capacity": devices, "allocatable": devices}}),
        )

    advertise(ADVERTISED)
    yield name
    advertise(dict.fromkeys(ADVERTISED))


@pytest.fixture(scope="module")
def inputs(kube, namespace, node):
    files = {"urls": ["/opt/hatchery/python-stdlib/json/*.py"]}
    placement = {"resources": {"requests": SMALL}}
    corpus = resource(
        *("CorpusBuild", namespace, "corpus"),
        sources=[{"name": "json", "files": files}],
        split={"validation": 0.3},
        placement=placement,
    )
    tokenizer = resource(
        *("TokenizerBuild", namespace, "tokenizer"),
        corpusRef={"name": "corpus"},
        build={},
        vocabSize=300,
        placement=placement,
    )
    kube.apply(tokenizer, corpus)
    kube.wait_succeeded("TokenizerBuild", namespace, "tokenizer", 600)


def running_pod(kube, namespace, run, index):
    return kube.wait_pod(
        namespace,
        f"{LABEL}={run},hatchery.dev/stage=train,batch.kubernetes.io/job-completion-index={index}",
        lambda pod: pod.status.phase == "Running",
        600,
    )


def workers(kube, namespace, pod):
    """The names in the environment of every worker in a pod."""
    text = kube.kubectl("exec", "-n", namespace, pod.metadata.name, "--", "python", "-c", WORKERS)
    return json.loads(text.splitlines()[-1])


def test_two_pods_with_two_devices_each_train_with_four_processes(kube, namespace, inputs, node):
    kube.apply(pretrain_run(namespace, "gang", nodes=2, limits={GPU: 2}))
    pods = [running_pod(kube, namespace, "gang", index) for index in (0, 1)]
    for pod in pods:
        [container] = pod.spec.containers
        told = {variable.name: variable.value for variable in container.env}
        assert container.resources.limits[GPU] == container.resources.requests[GPU] == "2"
        assert (told["HATCHERY_NODES"], told["HATCHERY_PROCESSES_PER_NODE"]) == ("2", "2")
        assert not [name for name in told if name.endswith("_VISIBLE_DEVICES")]
        assert pod.spec.node_name == node
    for pod in pods:
        wait_for(
            f"workers of {pod.metadata.name}",
            lambda pod=pod: len(workers(kube, namespace, pod)) >= 2,
            why="torchrun starts them when all pods are there",
            timeout_seconds=300,
        )
        found = workers(kube, namespace, pod)
        assert len(found) == 2
        assert not [name for names in found for name in names if name.endswith("_VISIBLE_DEVICES")]
    final = kube.wait_succeeded("PretrainRun", namespace, "gang", 600)
    assert final["status"]["step"] == STEPS


def test_encoding_holds_no_device(kube, namespace, inputs):
    [pod] = kube.core.list_namespaced_pod(namespace, label_selector=f"{LABEL}=gang,hatchery.dev/stage=encode").items
    assert GPU not in (pod.spec.containers[0].resources.limits or {})


def test_a_slice_of_a_gpu_trains_with_one_process(kube, namespace, inputs):
    kube.apply(pretrain_run(namespace, "slice", nodes=1, limits={SLICE: 1}))
    [container] = running_pod(kube, namespace, "slice", 0).spec.containers
    told = {variable.name: variable.value for variable in container.env}
    assert (container.resources.limits[SLICE], told["HATCHERY_PROCESSES_PER_NODE"]) == ("1", "1")
    kube.wait_succeeded("PretrainRun", namespace, "slice", 600)


def test_several_processes_on_slices_are_refused_before_anything_starts(kube, namespace, inputs):
    kube.apply(pretrain_run(namespace, "slices", nodes=1, limits={SLICE: 2}))
    found = kube.wait("PretrainRun", namespace, "slices", failed_because("InvalidSpec"), 60)
    [message] = [c["message"] for c in found["status"]["conditions"] if c["type"] == "Succeeded"]
    assert "slices of a GPU" in message
    assert not kube.batch.list_namespaced_job(namespace, label_selector=f"{LABEL}=slices").items


def test_more_devices_than_the_node_has_are_named(kube, namespace, inputs):
    kube.apply(pretrain_run(namespace, "many", nodes=1, limits={GPU: 8}, processesPerNode=1))
    found = kube.wait(
        *("PretrainRun", namespace, "many"),
        lambda one: condition(one, "Succeeded").get("reason") == "Unschedulable",
        300,
    )
    assert GPU in condition(found, "Succeeded")["message"]
