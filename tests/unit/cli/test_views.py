import pytest
from tests.support.operator.status_objects import blocked, completed, condition, failed, pipeline, resource, running

from hatchery_cli.errors import CommandError
from hatchery_cli.views import RunView, chosen

FINISHED = {"succeeded": True, "failed": False, "is_blocked": False, "is_settled": True}
FAILED = {"succeeded": False, "failed": True, "is_blocked": False, "is_settled": True}
BLOCKED = {"succeeded": False, "failed": False, "is_blocked": True, "is_settled": True}
GOING = {"succeeded": False, "failed": False, "is_blocked": False, "is_settled": False}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (completed("EvalRun"), FINISHED),
        (failed(), FAILED),
        (blocked(), BLOCKED),
        (running(), GOING),
        (resource("CorpusBuild"), GOING),
    ],
    ids=["completed", "failed", "blocked", "running", "not seen yet"],
)
def test_the_state_of_a_run(made, expected):
    run = RunView.of(made)
    assert {name: getattr(run, name) for name in expected} == expected


def test_live_numbers_of_a_training_run():
    run = RunView.of(running())
    assert (run.label, run.state, run.progress, run.eta) == (
        "pretrainrun/tiny",
        "Running",
        "90/200 steps (45%)",
        "1m10s",
    )
    assert (run.loss, run.tokens_per_second) == (3.25, 4100.0)


def test_the_numbers_of_a_finished_run_are_those_of_its_result():
    [model] = [RunView.of(o) for o in pipeline() if o["kind"] == "PretrainRun"]
    assert (model.loss, model.tokens_per_second, model.progress) == (3.0, 4100.4, "done")


@pytest.mark.parametrize("value", ["nan?", ""])
def test_a_metric_that_is_not_a_number_is_not_shown(value):
    made = running()
    made["status"]["progress"]["metrics"] = [{"name": "loss", "value": value}]
    assert RunView.of(made).loss is None


def test_fields_of_a_newer_operator_are_no_error():
    made = running()
    made["status"]["somethingNew"] = {"a": 1}
    assert RunView.of(made).state == "Running"


def test_runs_are_in_pipeline_order():
    kinds = [run.kind.kind for run in chosen(map(RunView.of, pipeline()), ())]
    assert kinds == ["CorpusBuild", "TokenizerBuild", "PretrainRun", "EvalRun"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["tiny"], ["pretrainrun/tiny", "evalrun/tiny"]),
        (["pt/tiny"], ["pretrainrun/tiny"]),
        (["PretrainRun/tiny"], ["pretrainrun/tiny"]),
        (["pretrainruns/tiny", "other"], ["corpusbuild/other", "pretrainrun/tiny"]),
        (["tiny", "ev/tiny"], ["pretrainrun/tiny", "evalrun/tiny"]),
        ([], ["corpusbuild/other", "pretrainrun/tiny", "evalrun/tiny"]),
    ],
)
def test_names_choose_runs(names, expected):
    runs = [RunView.of(o) for o in (running(), blocked(), completed("CorpusBuild", "other"))]
    assert [run.label for run in chosen(runs, names)] == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "existing runs: pretrainrun/tiny"),
        ("cb/tiny", "existing runs: pretrainrun/tiny"),
        ("pod/tiny", "unknown kind pod"),
    ],
)
def test_an_unknown_name_lists_the_existing_runs(name, message):
    with pytest.raises(CommandError, match=message) as caught:
        chosen([RunView.of(running())], [name])
    assert caught.value.code == 2


def explained(reason, message):
    """A run whose pods do not start."""
    conditions = [condition("Succeeded", "Unknown", reason, message), condition("Degraded", "True", reason, message)]
    return resource("CorpusBuild", conditions=conditions)


def stalled():
    made = running()
    made["status"]["conditions"].append(condition("Stalled", "True", "NoProgress", "no progress since ten"))
    return made


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (explained("Unschedulable", "too little cpu"), "too little cpu"),
        (
            explained("AttemptFailed", "ended with exit code 1: ValueError: x\nTraceback\n"),
            "ended with exit code 1: ValueError: x",
        ),
        (stalled(), "no progress since ten"),
        (
            resource("EvalRun", conditions=[condition("Succeeded", "Unknown", "Waiting", "waits for it")]),
            "waits for it",
        ),
        (running(), ""),
        (completed("EvalRun"), ""),
    ],
)
def test_the_explanation_of_a_run_without_progress_is_one_line(made, why):
    assert RunView.of(made).why == why
