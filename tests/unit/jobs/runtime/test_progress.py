"""Progress is throttled, estimates the time left, and never disturbs the work."""

import socket
import urllib.request

import pytest

from hatchery_jobs.runtime.progress import ProgressClient, ProgressReporter, serve_metrics


@pytest.fixture
def sent():
    return []


@pytest.fixture
def progress(sent):
    moments = iter([0.0, 0.0, 1.0, 6.0, 12.0])
    return ProgressReporter("train", clock=lambda: next(moments), send=sent.append)


def metric(status, name):
    return next(m.value for m in status.metrics if m.name == name)


def test_updates_within_the_interval_are_dropped(progress, sent):
    progress.update(0, 100, "steps")
    progress.update(5, 100, "steps")
    progress.update(10, 100, "steps")
    assert [metric(s, "done") for s in sent] == ["0", "10"]


def test_the_estimate_is_the_rest_over_the_speed_since_the_first_update(progress, sent):
    progress.update(40, 100, "steps")  # resumed at 40
    progress.update(41, 100, "steps")
    progress.update(70, 100, "steps")  # 30 steps in 6 s
    assert sent[-1].estimated_remaining_seconds == 6
    assert sent[-1].progress_percentage == 70


def test_numbers_go_along(progress, sent):
    progress.update(1, 2, "steps", {"loss": 3.14159265})
    assert metric(sent[0], "loss") == "3.14159"


def test_an_unreachable_operator_does_not_disturb(tmp_path, capsys):
    client = ProgressClient("https://127.0.0.1:1/x", tmp_path / "no-ca", tmp_path / "no-token")
    ProgressReporter("build", send=client.post).update(1, 2, "files")
    assert client.busy.acquire(timeout=10)
    assert "progress-not-sent" in capsys.readouterr().out


def test_the_metrics_port_is_free_again_after_stop():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    ProgressReporter("encode").update(3, 4, "documents")
    for _ in range(2):
        stop = serve_metrics(port)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
        stop()
        assert 'hatchery_stage_progress_ratio{stage="encode"} 0.75' in text
