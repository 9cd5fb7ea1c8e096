"""Log lines are JSON objects with the context of their reconcile."""

import asyncio
import json
import logging

from hatchery_operator.telemetry.logs import JsonFormatter, add_log_context, set_log_context


def line(**extra: object) -> dict[str, object]:
    record = logging.LogRecord("hatchery", logging.INFO, "f.py", 1, "status %s", ("written",), None)
    vars(record).update(extra)
    parsed: dict[str, object] = json.loads(JsonFormatter().format(record))
    return parsed


def test_a_line_says_when_what_and_about_what() -> None:
    found = line(kind="CorpusBuild", reason="Running", attempts=2)
    assert found["message"] == "status written"
    assert (found["level"], found["logger"]) == ("info", "hatchery")
    assert (found["kind"], found["reason"], found["attempts"]) == ("CorpusBuild", "Running", 2)
    assert str(found["time"]).endswith("+00:00")


def test_whole_objects_stay_out_of_the_log() -> None:
    assert "settings" not in line(settings={"secret": 1})


def test_an_exception_is_in_its_line() -> None:
    error = ValueError("boom")
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed", (), (type(error), error, None))
    assert "ValueError: boom" in json.loads(JsonFormatter().format(record))["trace"]


def test_every_line_of_a_pass_says_what_it_is_about_and_those_of_another_pass_do_not() -> None:
    async def one_pass(name: str, other: asyncio.Event, mine: asyncio.Event) -> dict[str, object]:
        set_log_context(kind="EvalRun", name=name, reconcile=name * 2)
        mine.set()
        await other.wait()
        add_log_context(attempt=3)
        return line()

    async def two_passes() -> list[dict[str, object]]:
        first, second = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(one_pass("a", second, first), one_pass("b", first, second))

    for name, found in zip("ab", asyncio.run(two_passes()), strict=True):
        assert (found["name"], found["reconcile"], found["attempt"]) == (name, name * 2, 3)
    assert "reconcile" not in line()
