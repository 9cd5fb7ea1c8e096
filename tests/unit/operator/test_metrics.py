"""Numbers about resources come from their status and go when they go."""

from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families
from tests.support.operator_builders import NOW, condition, manifest, rfc3339, run, with_status

from hatchery_api.status import ProgressStatus
from hatchery_operator.metrics import Metrics
from hatchery_operator.objects import Run, parse_run

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(runs: Iterable[Run]) -> Samples:
    metrics = Metrics()
    metrics.watch_runs(lambda: runs)
    families = text_string_to_metric_families(metrics.text().decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset({"namespace": "team", **values}.items())


def test_conditions_progress_and_attempts_of_every_run() -> None:
    subject = run()
    source = manifest()
    source["status"] = {
        "conditions": [condition("Succeeded", "Unknown", "Running")],
        "attempts": 2,
        "failures": 1,
        "progress": {"percentage": 45, "updatedAt": rfc3339(NOW)},
    }
    found = samples([parse_run(source)])
    of = {"kind": "CorpusBuild", "name": subject.name}
    state = labels(**of, type="Succeeded", status="Unknown", reason="Running")
    assert found["hatchery_resource_condition", state] == 1
    assert found["hatchery_run_progress_ratio", labels(**of)] == 0.45
    assert found["hatchery_run_last_heartbeat_timestamp_seconds", labels(**of)] == NOW.timestamp()
    assert (found["hatchery_run_attempts", labels(**of)], found["hatchery_run_failures", labels(**of)]) == (2, 1)


def test_final_losses_and_results_outlive_the_pods() -> None:
    trained = manifest("PretrainRun", "model")
    trained["status"] = {"steps": 100, "loss": {"train": 2.5, "eval": 3.0}, "perplexity": 20.1}
    evaluated = manifest("EvalRun", "eval")
    evaluated["status"] = {"results": [{"task": "ppl", "metric": "perplexity", "value": "inf", "n": 9}]}
    found = samples([parse_run(trained), parse_run(evaluated)])
    assert found["hatchery_train_loss", labels(name="model", split="train")] == 2.5
    assert found["hatchery_train_loss", labels(name="model", split="eval")] == 3.0
    assert ("hatchery_train_loss", labels(name="model", split="initial")) not in found
    assert found["hatchery_train_perplexity", labels(name="model")] == 20.1
    assert found["hatchery_run_target_steps", labels(kind="PretrainRun", name="model")] == 100
    assert found["hatchery_eval_metric", labels(name="eval", task="ppl", metric="perplexity")] == float("inf")


def test_series_go_with_the_resource() -> None:
    runs = [with_status(run(), attempts=1, progress=ProgressStatus(percentage=1))]
    metrics = Metrics()
    metrics.watch_runs(lambda: runs)
    assert b'name="code"' in metrics.text()
    runs.clear()
    assert b'name="code"' not in metrics.text()


def test_passes_and_answers_are_counted() -> None:
    metrics = Metrics()
    metrics.reconciled("EvalRun", "success", 0.2)
    metrics.answered("GET", 200)
    metrics.watch("hatchery_workqueue_depth", "Keys that wait.", lambda: 3.0)
    text = metrics.text().decode()
    assert 'hatchery_reconcile_total{kind="EvalRun",result="success"} 1.0' in text
    assert 'hatchery_reconcile_duration_seconds_count{kind="EvalRun"} 1.0' in text
    assert 'hatchery_api_requests_total{code="200",verb="GET"} 1.0' in text
    assert "hatchery_workqueue_depth 3.0" in text
    assert "_created" not in text
