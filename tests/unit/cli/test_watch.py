import io

import pytest
from rich.console import Console
from tests.support.operator.status_objects import FakeCluster, blocked, completed, failed, resource, running

from hatchery_cli.errors import CommandError, Exit
from hatchery_cli.watch import Watch


def watch(*states, names=(), tty=False, timeout=None, seconds=1.0):
    """What a watch over some states prints and how it ends; `seconds` pass between two looks."""
    page = io.StringIO()
    console = Console(file=page, force_terminal=tty, width=160, highlight=False, color_system=None)
    cluster = FakeCluster(states)
    code = Watch(cluster, console, "team", names, timeout, lambda: cluster.looks * seconds, lambda _: None).run()
    return code, page.getvalue(), cluster


def at(step, loss):
    made = running()
    numbers = {"done": str(step), "total": "200", "unit": "steps", "loss": str(loss)}
    made["status"]["progress"] |= {
        "metrics": [{"name": k, "value": v} for k, v in numbers.items()],
        "text": f"{step}/200 steps",
    }
    return made


def test_it_ends_well_when_all_have_succeeded():
    code, text, cluster = watch([resource("EvalRun")], [running("EvalRun")], [completed("EvalRun")])
    assert code == Exit.OK
    assert cluster.asked == ["team"] * 3
    words = [line.split()[-1] if "Completed" in line else line.split()[2] for line in text.splitlines()]
    assert "Running" in text
    assert "Completed" in text
    assert len(words) == 3


def test_a_line_for_each_change_and_none_between():
    code, text, _ = watch(*[[running()]] * 5, [completed("PretrainRun")], seconds=0.1)
    assert code == Exit.OK
    assert len(text.splitlines()) == 2


def test_progress_is_printed_every_thirty_seconds():
    states = [[at(step, 8 - step / 100)] for step in range(0, 200, 10)]
    _, text, _ = watch(*states, [completed("PretrainRun")], seconds=10.0)
    lines = [line for line in text.splitlines() if "steps" in line]
    assert 5 <= len(lines) <= 8  # 20 looks ten seconds apart
    assert "loss 8.000" in lines[0]


def test_a_line_has_progress_loss_speed_and_time_left():
    _, text, _ = watch([running()], [completed("PretrainRun")])
    first = text.splitlines()[0]
    for fact in (
        "pretrainrun/tiny",
        "train",
        "Running",
        "90/200 steps (45%)",
        "loss 3.250",
        "4,100 tokens/s",
        "1m10s left",
    ):
        assert fact in first


def test_a_failed_run_ends_it_with_a_card():
    code, text, _ = watch([running()], [failed()])
    assert code == Exit.FAILED
    flat = " ".join(text.replace("│", " ").split())
    assert "PretrainRun tiny: NonFiniteLoss" in flat
    assert "pretrainrun/tiny in namespace team, stage train, attempt 3, Job tiny-train-a3" in flat
    assert "step 17: the loss is nan at learning rate 0.9" in flat
    assert "lower the learning rate or `spec.optimizer.clipNorm`" in flat
    assert "kubectl -n team describe pretrainrun/tiny" in flat
    assert "kubectl -n team logs job/tiny-train-a3" in flat


def test_a_run_blocked_by_a_failed_one_ends_it():
    code, text, _ = watch([failed(), blocked()])
    assert code == Exit.FAILED
    assert "evalrun/tiny is blocked: waiting for PretrainRun tiny, which has failed" in text


def test_a_failed_run_does_not_hide_that_others_still_work():
    code, _, cluster = watch(
        [failed("CorpusBuild", "a"), running()], [failed("CorpusBuild", "a"), completed("PretrainRun")]
    )
    assert (code, cluster.looks) == (Exit.FAILED, 2)


def test_only_the_named_runs_are_waited_for():
    code, text, _ = watch([completed("CorpusBuild", "a"), running()], names=["cb/a"])
    assert code == Exit.OK
    assert "pretrainrun" not in text


def test_the_timeout_ends_it_and_names_the_running_runs():
    code, text, _ = watch([running()], timeout=90, seconds=20)
    assert code == Exit.TIMEOUT
    assert "timed out after 1m30s; still running: pretrainrun/tiny" in text


AWAY = CommandError("list pretrainruns: the cluster does not answer", Exit.FAILED)


def test_an_api_server_that_restarts_does_not_end_it():
    assert watch([running()], AWAY, AWAY, [completed("PretrainRun")])[0] == Exit.OK


def test_an_api_server_that_stays_unreachable_ends_it():
    with pytest.raises(CommandError, match="does not answer"):
        watch([running()], AWAY, seconds=10)


def test_a_run_that_is_deleted_meanwhile_ends_it():
    with pytest.raises(CommandError, match="no such run"):
        watch([running()], [], names=["tiny"])


@pytest.mark.parametrize("left", [[], [completed("CorpusBuild", "a")]], ids=["all of them", "one of two"])
def test_runs_deleted_while_all_are_watched_are_a_failure(left):
    with pytest.raises(CommandError, match=r"deleted while being watched: .*pretrainrun/tiny") as caught:
        watch([running(), completed("CorpusBuild", "a")], left)
    assert caught.value.code == Exit.FAILED


def test_an_empty_namespace_is_an_error():
    with pytest.raises(CommandError, match="no runs in namespace team"):
        watch([])


def test_a_terminal_gets_a_table_and_the_observed_curve():
    states = [[at(step, 8 - step / 50)] for step in (10, 10, 60, 110)]
    code, text, _ = watch(*states, [completed("PretrainRun")], tty=True)
    assert code == Exit.OK
    assert "KIND" in text
    assert "90/200" not in text
    assert "110/200 steps" in text
    assert "loss of pretrainrun/tiny" in text
    assert "7.800" in text
    assert "█" in text


def test_messages_of_a_pod_cannot_control_the_terminal():
    evil = failed()
    evil["status"]["conditions"][0]["message"] = "\x1b]0;owned\x07 [red]text"
    _, text, _ = watch([evil])
    assert "\x1b" not in text
    assert "[red]text" in text
