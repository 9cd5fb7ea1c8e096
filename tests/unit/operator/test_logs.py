"""One JSON object a line."""

import json
import logging

from hatchery_operator.logs import JsonFormatter


def line(**extra: object) -> dict[str, object]:
    record = logging.LogRecord("hatchery", logging.INFO, "f.py", 1, "status %s", ("written",), None)
    vars(record).update(extra)
    parsed: dict[str, object] = json.loads(JsonFormatter().format(record))
    return parsed


def test_a_line_says_when_what_and_about_what() -> None:
    found = line(kind="CorpusBuild", object_name="code", reason="Running", attempts=2)
    assert found["message"] == "status written"
    assert (found["level"], found["logger"]) == ("info", "hatchery")
    assert (found["kind"], found["name"], found["reason"], found["attempts"]) == ("CorpusBuild", "code", "Running", 2)
    assert str(found["time"]).endswith("+00:00")


def test_whole_objects_stay_out_of_the_log() -> None:
    assert "settings" not in line(settings={"secret": 1})


def test_an_exception_is_in_its_line() -> None:
    error = ValueError("boom")
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed", (), (type(error), error, None))
    assert "ValueError: boom" in json.loads(JsonFormatter().format(record))["trace"]
