"""Training on CPUs that the kernel kills for memory goes on with half the micro-batch."""

from tests.support.jobs.training_run import training_run

SEQUENCES, MEMORY = 256, "3200Mi"
"""Sequences of a batch, whose activations take 2.6 GB all at once and half of that in halves; the processes that train
take 1.2 GB before."""


def test_a_run_killed_for_memory_goes_on_with_half_the_rows_at_the_same_batch(kube, namespace):
    *before, run = training_run("large", namespace)
    run["spec"] |= {
        "model": {"size": "tiny", "overrides": {"layers": 4, "heads": 4, "hiddenSize": 128}},
        "data": {"sequenceLength": 256},
        "schedule": {"steps": 3, "warmupSteps": 0, "peakLr": 1e-3},
        "batch": {"sequences": SEQUENCES, "perDevice": SEQUENCES},
        "evaluate": {"batches": 0},
        "retry": {"maxAttempts": 2, "backoff": "1s"},
        "placement": {"resources": {"requests": {"cpu": "1", "memory": MEMORY}, "limits": {"memory": MEMORY}}},
    }
    before[0]["spec"]["sources"][0]["files"]["urls"] = [
        f"/opt/hatchery/python-stdlib/{folder}/**/*.py" for folder in ("json", "asyncio", "email")
    ]
    kube.apply(*before, run)
    status = kube.wait_succeeded("PretrainRun", namespace, "large", 400)["status"]
    assert (status["microBatch"], status["step"], status["tokens"]) == (SEQUENCES // 2, 3, 3 * SEQUENCES * 256)
    # where the kernel kills a single process its pod goes on, where it kills all of a container the next attempt does
    killed = status["failures"]
    assert killed in {0, 1}
    assert status["attempts"] == 2 + killed
    assert [stage.get("failure") for stage in status["stages"]] == [None, "OutOfMemory" if killed else None]
