"""The samples of every objective on a real cluster, shortened, and what training reads straight from text and in parts."""

from pathlib import Path

import pytest
import yaml

SAMPLES = Path(__file__).resolve().parents[2] / "manifests/samples"
STEPS = 40
SMALL = {"requests": {"cpu": "100m", "memory": "512Mi"}}
SHORT = {
    "schedule": {"steps": STEPS, "warmupSteps": 4, "peakLr": 3e-3},
    "checkpoint": {"everySteps": 20},
    "evaluate": {"everySteps": 20, "batches": 2},
    "placement": {"resources": SMALL},
}


def sample(name, namespace):
    """The objects of a sample, the run cut short."""
    objects = list(yaml.safe_load_all((SAMPLES / f"{name}.yaml").read_text()))
    for one in objects:
        one["metadata"]["namespace"] = namespace
        if one["kind"] == "PretrainRun":
            one["spec"] |= SHORT
    return objects


def corpus(namespace):
    """The corpus that the samples name, of a few packages."""
    library = "/opt/hatchery/python-stdlib"
    urls = [f"{library}/{package}/**/*.py" for package in ("asyncio", "email", "json", "logging", "http", "unittest")]
    spec = {"sources": [{"name": "stdlib", "files": {"urls": urls}}], "split": {"validation": 0.1}}
    metadata = {"name": "stdlib", "namespace": namespace}
    return {"apiVersion": "hatchery.dev/v1alpha1", "kind": "CorpusBuild", "metadata": metadata, "spec": spec}


def streamed(namespace):
    """A llama in parts on two pods, learnt from text as it is read, which writes texts meanwhile."""
    spec = {
        "corpora": [{"corpusRef": {"name": "stdlib"}}],
        "tokenizerRef": {"name": "stdlib-encoder"},
        "model": {
            "architecture": "llama",
            "size": "tiny",
            "overrides": {"layers": 2, "heads": 4, "keyValueHeads": 2, "hiddenSize": 64, "feedForwardSize": 128},
        },
        "data": {"sequenceLength": 64, "loading": "streaming", "documentMask": True},
        "batch": {"sequences": 8, "perDevice": 2},
        "parallelism": {"nodes": 2, "strategy": "fsdp"},
        **SHORT,
    }
    spec["evaluate"] = {**SHORT["evaluate"], "samples": {"prompts": ["def main("], "maxTokens": 8}}
    metadata = {"name": "streamed", "namespace": namespace}
    return {"apiVersion": "hatchery.dev/v1alpha1", "kind": "PretrainRun", "metadata": metadata, "spec": spec}


@pytest.fixture(scope="module")
def runs(kube, namespace):
    """All at once; gives their final objects."""
    kube.apply(corpus(namespace), *sample("masked", namespace), *sample("seq2seq", namespace), streamed(namespace))
    names = ("stdlib-encoder", "stdlib-pairs", "streamed")
    return {name: kube.wait_succeeded("PretrainRun", namespace, name, 900) for name in names}


@pytest.mark.parametrize("name", ["stdlib-encoder", "stdlib-pairs", "streamed"])
def test_every_objective_learns_on_the_cluster(runs, name):
    status = runs[name]["status"]
    assert (status["step"], status["attempts"], status["failures"]) == (STEPS, 2, 0)
    assert status["loss"]["eval"] < status["loss"]["initial"] - 0.5
    assert status["checkpointBytes"] == 12 * status["parameters"]


def test_only_whole_text_has_bits_per_byte(runs):
    assert 0 < runs["streamed"]["status"]["bitsPerByte"] < 8
    assert "bitsPerByte" not in runs["stdlib-encoder"]["status"]
