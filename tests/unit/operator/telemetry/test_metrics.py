"""Metrics about resources come from their status and disappear with them."""

from collections.abc import Iterable

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.operator.builders import NOW, condition, manifest, rfc3339, run, with_status
from tests.support.operator.run_samples import REASONS, fleet

from hatchery_api.status import ProgressStatus
from hatchery_operator.domain.objects import Run, parse_run
from hatchery_operator.telemetry.metrics import PHASES, SERIES_PER_RUN, Metrics

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
    of = {"kind": "PretrainRun", "name": "model"}
    assert found["hatchery_run_loss", labels(**of, split="train")] == 2.5
    assert found["hatchery_run_loss", labels(**of, split="validation")] == 3.0
    assert ("hatchery_run_loss", labels(**of, split="initial")) not in found
    assert found["hatchery_run_perplexity", labels(**of)] == 20.1
    assert found["hatchery_run_target_steps", labels(**of)] == 100
    assert found["hatchery_eval_metric", labels(name="eval", task="ppl", metric="perplexity")] == float("inf")


def test_a_result_that_is_no_number_costs_one_series_and_not_the_page() -> None:
    evaluated = manifest("EvalRun", "eval")
    results = [{"task": "t", "metric": m, "value": v, "n": 1} for m, v in (("good", "1.5"), ("bad", "n/a"))]
    evaluated["status"] = {"results": results}
    found = samples([parse_run(evaluated)])
    assert [dict(labels)["metric"] for name, labels in found if name == "hatchery_eval_metric"] == ["good"]


STAGES_BEFORE_THE_END = ("Waiting", "Pending", "Running", "Retrying", "Suspended", "Resizing")


@pytest.mark.parametrize(
    ("succeeded", "stages", "phase"),
    [
        *((None, [state], state) for state in STAGES_BEFORE_THE_END),
        *(("Unknown", ["Succeeded", state], state) for state in STAGES_BEFORE_THE_END),
        (None, [], "Waiting"),
        ("True", ["Succeeded", "Succeeded"], "Succeeded"),
        ("False", ["Succeeded", "Failed"], "Failed"),
        ("False", ["Waiting"], "Failed"),
    ],
)
def test_a_resource_is_in_exactly_one_phase(succeeded: str | None, stages: list[str], phase: str) -> None:
    source = manifest("PretrainRun", "model")
    source["status"] = {
        "conditions": [condition("Succeeded", succeeded, "Running")] if succeeded else [],
        "stages": [{"name": f"s{n}", "state": state} for n, state in enumerate(stages)],
    }
    found = {
        dict(key)["phase"]: value for (name, key), value in samples([parse_run(source)]).items() if "phase" in name
    }
    assert found.keys() == set(PHASES)
    assert [name for name, value in found.items() if value] == [phase]


def test_the_samples_know_every_phase() -> None:
    assert set(REASONS) == set(PHASES)


def test_devices_are_held_while_the_training_stage_runs() -> None:
    def held(stage: str, state: str) -> float:
        source = manifest("PretrainRun", "model", parallelism={"nodes": 2})
        source["spec"]["placement"] = {"resources": {"limits": {"nvidia.com/gpu": 4}}}
        stages = [{"name": "encode", "state": "Running"}, {"name": "train", "state": "Waiting"}]
        if stage == "train":
            stages = [{"name": "encode", "state": "Succeeded"}, {"name": "train", "state": state}]
        source["status"] = {"currentStage": stage, "stages": stages}
        return samples([parse_run(source)])["hatchery_run_devices", labels(kind="PretrainRun", name="model")]

    assert [held("encode", "Running"), held("train", "Pending"), held("train", "Running")] == [0, 0, 8]


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


def test_series_are_there_before_anything_happens() -> None:
    """The rate of a counter that has just appeared is missing, not 0."""
    text = Metrics().text().decode()
    for series in (
        'hatchery_reconcile_total{kind="EvalRun",result="error"} 0.0',
        'hatchery_reconcile_duration_seconds_count{kind="CorpusBuild"} 0.0',
        'hatchery_api_requests_total{code="0",verb="PATCH"} 0.0',
        "hatchery_watch_missed_total 0.0",
        'hatchery_watch_age_seconds{kind="Job"}',
    ):
        assert series in text


def test_a_watch_ages_until_it_is_heard_of() -> None:
    time = 100.0
    metrics = Metrics(lambda: time)
    time = 160.0
    metrics.heard("Job", "EvalRun")
    time = 170.0
    text = metrics.text().decode()
    assert 'hatchery_watch_age_seconds{kind="Job"} 10.0' in text
    assert 'hatchery_watch_age_seconds{kind="PretrainRun"} 70.0' in text


LABELS = {"kind", "namespace", "name", "phase", "type", "status", "reason", "stage", "split", "task", "metric"}
"""Labels allowed on series about a resource; each is a name or a member of a small closed set."""


def test_no_step_commit_path_or_error_text_is_ever_a_label() -> None:
    found = samples(fleet(32))
    about_runs = [
        dict(key) for name, key in found if name.startswith(("hatchery_run", "hatchery_res", "hatchery_eval"))
    ]
    assert set().union(*about_runs) == LABELS
    values = {value for series in about_runs for value in series.values()}
    assert [value for value in values if any(part in value for part in ("/", " ", "sha256", "0123456789abcdef"))] == []
    assert "commit" in str([run.status for run in fleet(32)]), "the statuses do hold what must not become a label"


def test_series_grow_with_the_number_of_resources_and_nothing_else() -> None:
    def count(size: int) -> int:
        return len([name for name, _ in samples(fleet(size)) if name.startswith("hatchery_")])

    per_run = (count(320) - count(160)) / 160
    assert count(320) - count(160) == count(480) - count(320)
    assert per_run <= SERIES_PER_RUN


def test_only_a_resource_that_has_changed_is_written_anew() -> None:
    """Rendering a thousand resources would block the event loop for a tenth of a second."""
    runs = fleet(32)
    metrics = Metrics()
    metrics.watch_runs(lambda: runs)
    before = metrics.text()
    runs[3] = with_status(runs[3], attempts=7)
    changed = set(metrics.text().decode().splitlines()) - set(before.decode().splitlines())
    mine = [line for line in changed if line.startswith("hatchery_run")]
    assert mine == ['hatchery_run_attempts{kind="EvalRun",namespace="team",name="run-3"} 7.0']


def test_odd_characters_in_the_name_of_a_result_cannot_break_the_page() -> None:
    evaluated = manifest("EvalRun", "eval")
    evaluated["status"] = {"results": [{"task": 'a"b\\c\nd', "metric": "m", "value": "1", "n": 1}]}
    found = samples([parse_run(evaluated)])
    assert found["hatchery_eval_metric", labels(name="eval", task='a"b\\c\nd', metric="m")] == 1
