"""Objects as the API server gives them, and a cluster that holds them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]

TIME = "2026-01-01T10:00:00Z"


def condition(kind: str, status: str, reason: str, message: str = "") -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": TIME}


def resource(kind: str, name: str = "tiny", namespace: str = "team", **status: Any) -> Object:
    return {
        "apiVersion": "hatchery.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": TIME},
        "spec": {},
        "status": status,
    }


def running(kind: str = "PretrainRun", name: str = "tiny", **status: Any) -> Object:
    metrics = {
        "stage": "train",
        "done": "90",
        "total": "200",
        "unit": "steps",
        "loss": "3.25",
        "tokens_per_second": "4100",
    }
    progress = {
        "text": "90/200 steps (45%)",
        "percentage": 45,
        "eta": "1m10s",
        "metrics": [{"name": k, "value": v} for k, v in metrics.items()],
        "updatedAt": TIME,
    }
    return resource(
        kind,
        name,
        **{
            "conditions": [
                condition("Succeeded", "Unknown", "Running", "2 of 2 pods of Job tiny-train-a1 are running")
            ],
            "currentStage": "train",
            "progress": progress,
            "stages": [
                {"name": "encode", "state": "Succeeded", "attempt": 1, "job": "tiny-encode-a1"},
                {"name": "train", "state": "Running", "attempt": 1, "job": "tiny-train-a1"},
            ],
        }
        | status,
    )


def completed(kind: str, name: str = "tiny", **status: Any) -> Object:
    return resource(
        kind,
        name,
        conditions=[condition("Succeeded", "True", "Completed", "artifact is there")],
        startTime=TIME,
        completionTime="2026-01-01T10:04:05Z",
        attempts=1,
        progress={"text": "done", "percentage": 100},
        artifact={
            "uri": f"claim://hatchery/team/{kind.lower()}s/{name}/0123456789abcdef",
            "digest": f"sha-of-{kind}",
            "bytes": 3 * 1024 * 1024,
            "key": "0123456789abcdef",
        },
        hub={"repo": f"org/{kind}", "revision": f"revision-of-{kind}", "url": f"http://hub.test/org/{kind}"},
        **status,
    )


def failed(kind: str = "PretrainRun", name: str = "tiny", reason: str = "NonFiniteLoss") -> Object:
    message = "step 17: the loss is nan at learning rate 0.9 (attempt 3 of 3)"
    return resource(
        kind,
        name,
        conditions=[condition("Succeeded", "False", reason, message), condition("Degraded", "True", reason, message)],
        completionTime=TIME,
        stages=[{"name": "train", "state": "Failed", "attempt": 3, "job": "tiny-train-a3"}],
    )


def blocked(kind: str = "EvalRun", name: str = "tiny") -> Object:
    message = "waiting for PretrainRun tiny, which has failed"
    return resource(
        kind,
        name,
        conditions=[
            condition("Succeeded", "Unknown", "Waiting", message),
            condition("Degraded", "True", "ReferenceFailed", message),
        ],
    )


def pipeline() -> list[Object]:
    """A finished pipeline with round numbers."""
    corpus = completed(
        "CorpusBuild",
        funnel=[
            {"step": "read", "rows": 2000, "bytes": 4096, "dropped": 0},
            {"step": "maxLineLength", "rows": 1500, "bytes": 3072, "dropped": 500},
            {"step": "nearDuplicate", "rows": 1000, "bytes": 2048, "dropped": 500},
        ],
        duplicates={"exact": 12, "near": 500, "clusters": 40, "largest": 9},
        splits={
            "train": {"rows": 950, "bytes": 2000, "shards": 1},
            "validation": {"rows": 50, "bytes": 48, "shards": 1},
        },
        quarantined=3,
    )
    measures = ("continuedWords", "unknown", "rare", "unusedVocabulary", "charsPerToken", "bytesPerToken", "roundTrip")
    tokenizer = completed(
        "TokenizerBuild",
        vocabSize=4096,
        documents=950,
        metrics={"fertility": 1.75, **dict.fromkeys(measures, 0.5)},
        missingKeywords=["nonlocal", "await"],
    )
    model = completed(
        "PretrainRun",
        parameters=1_400_000,
        step=300,
        steps=300,
        tokens=2_457_600,
        loss={"train": 3.0, "eval": 3.2, "initial": 8.3},
        perplexity=25.0,
        initialPerplexity=4000.0,
        bitsPerByte=1.6,
        tokensPerSecond=4100.4,
        mfu=0.414,
        goodput=0.93,
        skipped=3,
        rollbacks=1,
        resumedFrom=[150],
    )
    evaluation = completed(
        "EvalRun",
        results=[{"task": "perplexity", "metric": "perplexity", "value": "24.9", "n": 51_200}],
        samples=[{"task": "completion", "prompt": "def area(w, h):\n", "completion": "    return w * h"}],
    )
    return [evaluation, model, tokenizer, corpus]


@dataclass
class FakeCluster:
    """Gives one state after the other; the last one stays."""

    states: Sequence[list[Object] | Exception]
    namespace: str = "team"
    looks: int = 0
    asked: list[str | None] = field(default_factory=list)
    applied: list[tuple[Object, str, bool]] = field(default_factory=list)
    refuse: Exception | None = None

    def list(self, namespace: str | None) -> "list[Object]":
        self.asked.append(namespace)
        state = self.states[min(self.looks, len(self.states) - 1)]
        self.looks += 1
        if isinstance(state, Exception):
            raise state
        return state

    def apply(self, resource: Object, namespace: str, *, dry_run: bool) -> Object:
        if self.refuse:
            raise self.refuse
        self.applied.append((resource, namespace, dry_run))
        return resource
