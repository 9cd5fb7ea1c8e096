import json
import math
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatchery_api.status import HubRevision
from hatchery_cli.curve import parse, plot, read_from_hub

LINES = ['{"step": 0, "eval_loss": 8.3}', '{"step": 1, "loss": 8.0, "learning_rate": 0.1}', '{"step": 2, "loss": 7.5}']


def _eighths(text: str) -> list[int]:
    """Heights of the columns in eighths of a line, counted from the drawing."""
    *lines, axis = text.split("\n")
    rows = [line[axis.index("step") :] for line in lines]
    return [sum(" ▁▂▃▄▅▆▇█".index(c) for c in column) for column in zip(*rows, strict=True)]


def test_only_training_losses_are_the_curve():
    assert parse(LINES) == [(1.0, 8.0), (2.0, 7.5)]


def test_a_falling_line_falls_and_touches_top_and_bottom():
    heights = _eighths(plot([(n, 100 - n) for n in range(40)], rows=5, columns=40))
    assert heights == sorted(heights, reverse=True)
    assert (heights[0], heights[-1]) == (5 * 8, 1)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(1, 9), st.integers(1, 80))
def test_any_curve_fits_its_frame(values, rows, columns):
    drawn = plot(list(enumerate(values)), rows, columns)
    heights = _eighths(drawn)
    assert len(heights) == min(columns, len(values))
    assert all(1 <= height <= 8 * rows for height in heights)
    assert drawn.split("\n")[-1].endswith(str(len(values) - 1))


def test_the_extremes_label_the_plot():
    first, *_, last, _ = plot([(1, 8.5), (2, 3.25), (3, 4.0)], rows=4).split("\n")
    assert first.strip().startswith("8.500")
    assert last.strip().startswith("3.250")


def test_nan_and_infinite_points_are_skipped():
    assert plot([(1, math.inf), (2, math.nan)]) == "no points"
    assert "5.000" in plot([(1, math.inf), (2, 5.0), (3, 4.0)])


class _Hub(BaseHTTPRequestHandler):
    asked: list[tuple[str, str | None]] = []

    def do_GET(self):
        self.asked.append((self.path, self.headers.get("Authorization")))
        allowed = self.headers.get("Authorization") == "Bearer secret"
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write("\n".join(LINES).encode() if allowed else json.dumps({"error": "no"}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = HTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    _Hub.asked.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("inside", [True, False], ids=["address of the status", "address of this machine"])
def test_the_curve_is_read_from_the_commit_that_was_pushed(hub, inside):
    pushed = HubRevision(repo="org/m", revision="abc", url=f"{hub if inside else 'http://hub.test'}/org/m/commit/abc")
    assert read_from_hub(pushed, None if inside else f"{hub}/", "secret") == [(1.0, 8.0), (2.0, 7.5)]
    assert _Hub.asked == [("/org/m/resolve/abc/metrics.jsonl", "Bearer secret")]


def test_an_error_of_the_hub_is_raised(hub):
    with pytest.raises(OSError, match="401"):
        read_from_hub(HubRevision(repo="org/m", revision="abc", url=f"{hub}/org/m"), None, None)


def test_a_url_other_than_http_is_rejected():
    with pytest.raises(ValueError, match=r"not an http"):
        read_from_hub(HubRevision(repo="org/m", revision="abc", url="file:///etc/org/m"), None, None)
