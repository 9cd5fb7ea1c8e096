"""The work queue under a clock controlled by the test."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatchery_operator.domain.backoff import RECONCILE
from hatchery_operator.errors import OperatorError
from hatchery_operator.kube.workqueue import (
    SPACING_SECONDS,
    Schedule,
    WorkQueue,
)


def agenda(jitter: float = 0.0) -> Schedule[str]:
    return Schedule(lambda: jitter)


def take_all(todo: Schedule[str], now: float) -> list[str]:
    return [key for _ in range(100) if (key := todo.take(now)) is not None]


def test_keys_come_out_in_the_order_in_which_they_were_first_wanted() -> None:
    todo = agenda()
    for now, key in enumerate(["a", "b", "a", "c", "b"]):
        todo.add(key, now)
    assert take_all(todo, 9) == ["a", "b", "c"]


def test_a_key_in_work_is_not_given_out_again_until_it_is_done() -> None:
    todo = agenda()
    todo.add("a", 0)
    assert todo.take(0) == "a"
    todo.add("a", 1)
    todo.add("a", 2)
    assert todo.take(3) is None
    todo.done("a", 3, None)
    assert take_all(todo, 3 + SPACING_SECONDS) == ["a"]


def test_a_key_that_changes_all_the_time_is_worked_on_a_few_times_a_second() -> None:
    todo, taken = agenda(), 0
    for tick in range(1000):
        now = tick / 100
        todo.add("hot", now)
        if todo.take(now):
            todo.done("hot", now, None)
            taken += 1
    assert 45 <= taken <= 10 / SPACING_SECONDS


def test_a_key_that_has_rested_or_is_new_does_not_wait() -> None:
    todo = agenda()
    todo.add("a", 0)
    assert todo.take(0) == "a"
    todo.done("a", 0, None)
    todo.add("new", 0.01)
    assert todo.take(0.01) == "new"
    todo.add("a", 1)
    assert todo.take(1) == "a"


def test_work_that_goes_on_does_so_behind_those_who_wait() -> None:
    todo = agenda()
    for key in "abc":
        todo.add(key, 0)
    assert todo.take(0) == "a"
    todo.done("a", 0, 0.0)
    assert take_all(todo, 0) == ["b", "c", "a"]


def test_news_about_work_that_goes_on_does_not_make_it_wait() -> None:
    todo = agenda()
    todo.add("a", 0)
    todo.take(0)
    todo.add("a", 0)
    todo.done("a", 0, 0.0)
    assert todo.take(0) == "a"
    assert todo.next_due() is None


def test_a_hot_key_does_not_hold_back_the_others() -> None:
    todo = agenda()
    todo.add("hot", 0)
    taken = []
    for now in range(1, 6):
        todo.add(f"cold-{now}", now)
        key = todo.take(now)
        assert key is not None
        todo.add("hot", now)
        todo.done(key, now, None)
        taken.append(key)
    assert taken == ["hot", "cold-1", "cold-2", "hot", "cold-3"]
    assert set(take_all(todo, 9)) | set(taken) == {"hot", *(f"cold-{n}" for n in range(1, 6))}


def test_failures_double_the_wait_up_to_the_longest() -> None:
    todo, waits, now = agenda(), [], 0.0
    for _ in range(8):
        todo.add("a", now)
        assert todo.take(now) == "a"
        waits.append(todo.failed("a", now))
        assert todo.take(now + waits[-1] - 0.001) is None
        now += waits[-1]
    assert waits == [min(RECONCILE.longest_seconds, RECONCILE.first_seconds * 2**n) for n in range(8)]


def test_jitter_only_shortens_and_by_its_share() -> None:
    todo = agenda(jitter=1.0)
    todo.add("a", 0)
    todo.take(0)
    assert todo.failed("a", 0) == RECONCILE.first_seconds * (1 - RECONCILE.jitter)


def test_a_wait_that_was_asked_for_is_never_shortened() -> None:
    todo = agenda(jitter=1.0)
    todo.add("a", 0)
    todo.take(0)
    assert todo.failed("a", 0, at_least=90) == 90
    todo.add("a", 1)
    assert todo.take(89.9) is None


def test_success_forgets_the_failures() -> None:
    todo = agenda()
    todo.add("a", 0)
    todo.take(0)
    todo.failed("a", 0)
    assert todo.take(2) == "a"
    todo.done("a", 2, None)
    todo.add("a", 3)
    assert todo.take(3) == "a"
    assert todo.failed("a", 3) == RECONCILE.first_seconds


def test_news_about_a_key_that_has_just_failed_does_not_shorten_its_wait() -> None:
    todo = agenda()
    todo.add("a", 0)
    todo.take(0)
    todo.failed("a", 0)
    todo.add("a", 0.1)
    assert todo.take(0.2) is None
    assert todo.take(RECONCILE.first_seconds) == "a"


def test_the_earliest_deadline_counts() -> None:
    todo = agenda()
    todo.add_at("a", 10)
    todo.add_at("a", 5)
    todo.add_at("a", 7)
    assert todo.next_due() == 5
    assert todo.take(4.9) is None
    assert todo.take(5) == "a"
    todo.done("a", 5, None)
    assert todo.next_due() is None


def test_being_worked_on_cancels_a_deadline() -> None:
    todo = agenda()
    todo.add_at("a", 10)
    todo.add("a", 1)
    assert todo.take(1) == "a"
    todo.done("a", 1, None)
    assert todo.take(11) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["add", "at", "take", "done", "fail"])), max_size=60))
def test_no_wish_is_lost_and_no_key_is_worked_on_twice_at_once(operations: list[tuple[str, str]]) -> None:
    todo, busy, wanted = agenda(), set[str](), set[str]()
    for now, (key, operation) in enumerate(operations):
        if operation == "add":
            todo.add(key, now)
            wanted.add(key)
        elif operation == "at":
            todo.add_at(key, now + 3)
            wanted.add(key)
        elif operation == "take" and (taken := todo.take(now)) is not None:
            assert taken not in busy
            busy.add(taken)
            wanted.discard(taken)
        elif operation == "done" and key in busy:
            todo.done(key, now, None)
            busy.discard(key)
        elif operation == "fail" and key in busy:
            todo.failed(key, now)
            busy.discard(key)
            wanted.add(key)
    for key in sorted(busy):
        todo.done(key, 1000, None)
    assert wanted <= set(take_all(todo, 10_000))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def run_until(queue: WorkQueue[str], condition: asyncio.Event) -> None:
    task = asyncio.create_task(queue.run())
    async with asyncio.timeout(5):
        await condition.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_as_many_workers_run_side_by_side_as_allowed_and_no_more() -> None:
    async def scenario() -> int:
        active, most, finished = 0, 0, itertools.count(1)
        done, together = asyncio.Event(), asyncio.Barrier(3)

        async def work(_: str) -> None:
            nonlocal active, most
            active += 1
            most = max(most, active)
            await together.wait()
            active -= 1
            if next(finished) == 9:
                done.set()

        queue: WorkQueue[str] = WorkQueue(work, 3, Clock(), lambda: 0.0)
        for number in range(9):
            queue.add(f"k{number}")
        await run_until(queue, done)
        return most

    assert asyncio.run(scenario()) == 3


@pytest.mark.parametrize("error", [OperatorError("no"), ValueError("bug")])
def test_a_key_that_fails_is_tried_again_and_others_go_on(error: Exception) -> None:
    async def scenario() -> list[str]:
        seen: list[str] = []
        done, clock = asyncio.Event(), Clock()

        async def work(key: str) -> None:
            seen.append(key)
            if seen == ["bad"]:
                raise error
            clock.now += RECONCILE.first_seconds
            if seen.count("bad") == 2:
                done.set()

        queue: WorkQueue[str] = WorkQueue(work, 1, clock, lambda: 0.0)
        queue.add("bad")
        queue.add("good")
        await run_until(queue, done)
        return seen

    assert asyncio.run(scenario()) == ["bad", "good", "bad"]


def test_a_key_can_ask_to_be_looked_at_again_later() -> None:
    async def scenario() -> int:
        calls, done = 0, asyncio.Event()

        async def work(_: str) -> float | None:
            nonlocal calls
            calls += 1
            if calls == 2:
                done.set()
            return 0.01 if calls == 1 else None

        queue: WorkQueue[str] = WorkQueue(work, 1, asyncio.get_running_loop().time, lambda: 0.0)
        queue.add("a")
        await run_until(queue, done)
        return calls

    assert asyncio.run(scenario()) == 2


async def nothing(_: str) -> None:
    return None


def test_depth_and_age_tell_of_keys_that_wait() -> None:
    clock = Clock()
    queue: WorkQueue[str] = WorkQueue(nothing, 1, clock, lambda: 0.0)
    assert (queue.depth, queue.oldest_seconds) == (0, 0.0)
    queue.add("a")
    clock.now = 7.0
    queue.add("b")
    assert (queue.depth, queue.oldest_seconds) == (2, 7.0)


def test_memory_does_not_grow_when_every_pass_names_next_weeks_deadline_anew() -> None:
    todo = agenda()
    keys, week = [f"run-{number}" for number in range(10)], 7 * 24 * 3600.0
    todo.add_at("one that is due a little before", week - 1)
    for resync in range(1000):
        now = 300.0 * resync
        for key in keys:
            todo.add(key, now)
            assert todo.take(now) == key
            todo.done(key, now, week - now + resync / 1e6)
    assert len(todo._heap) < 10 * len(keys)
    assert set(keys) < set(take_all(todo, week + 1))


def test_a_long_line_that_moves_is_not_stuck_however_slow_the_api_server_is() -> None:
    clock = Clock()

    async def scenario() -> tuple[float, float]:
        waited: list[tuple[float, float]] = []
        done = asyncio.Event()

        async def slow(key: str) -> None:
            clock.now += 30.0
            waited.append((queue.oldest_seconds, queue.stuck_seconds))
            if key == "19":
                done.set()

        queue: WorkQueue[str] = WorkQueue(slow, 1, clock, lambda: 0.0)
        for number in range(21):
            queue.add(str(number))
        await run_until(queue, done)
        return max(oldest for oldest, _ in waited), max(stuck for _, stuck in waited)

    oldest, stuck = asyncio.run(scenario())
    assert oldest == 600.0
    assert stuck == 30.0


def test_keys_are_stuck_while_no_worker_ends_a_pass() -> None:
    clock = Clock()
    queue: WorkQueue[str] = WorkQueue(nothing, 1, clock, lambda: 0.0)
    clock.now = 1000.0
    queue.add("a")
    assert queue.stuck_seconds == 0.0
    clock.now = 1400.0
    assert queue.stuck_seconds == 400.0
