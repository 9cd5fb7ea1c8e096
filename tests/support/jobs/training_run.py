"""A training run of a few minutes, and the state of its pods."""

from tests.support.kube.kubectl import Kube, Object

LABEL = "hatchery.dev/name"
"""Label of every pod of a run."""


def training_run(name: str, namespace: str) -> list[Object]:
    """A pipeline up to a PretrainRun, all of one name."""
    specs = {
        "CorpusBuild": {
            "sources": [{"name": "json", "files": {"urls": ["/opt/hatchery/python-stdlib/json/*.py"]}}],
            "split": {"validation": 0.3},
        },
        "TokenizerBuild": {"corpusRef": {"name": name}, "build": {}, "vocabSize": 300},
        "PretrainRun": {
            "corpora": [{"corpusRef": {"name": name}}],
            "tokenizerRef": {"name": name},
            "model": {"size": "tiny", "overrides": {"layers": 1, "heads": 2, "hiddenSize": 32}},
            "data": {"sequenceLength": 64},
            "schedule": {"steps": 4000, "warmupSteps": 10, "peakLr": 3e-3},
            "batch": {"sequences": 8, "perDevice": 8},
            "checkpoint": {"everySteps": 500},
        },
    }
    return [
        {
            "apiVersion": "hatchery.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }
        for kind, spec in specs.items()
    ]


def is_training(run: Object) -> bool:
    """Whether a PretrainRun trains and has said how far it is."""
    status = run.get("status", {})
    return status.get("currentStage") == "train" and (status.get("progress") or {}).get("percentage", 0) > 0


def containers(kube: Kube, namespace: str) -> dict[str, int]:
    """Every pod of the runs in a namespace by UID with how often its container was restarted."""
    pods = kube.core.list_namespaced_pod(namespace, label_selector=LABEL).items
    return {p.metadata.uid: sum(s.restart_count for s in p.status.container_statuses or []) for p in pods}
