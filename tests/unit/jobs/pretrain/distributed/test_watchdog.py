"""The watchdog with a fake clock, and with a process that really hangs."""

import subprocess
import sys

from hatchery_jobs.pretrain.distributed.watchdog import EXIT_CODE, Watchdog


class Clock:
    """Time as the test says it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def watched(timeout: float = 10.0) -> tuple[Watchdog, Clock]:
    clock = Clock()
    return Watchdog(timeout, lambda hang: None, clock), clock


def test_before_the_first_update_the_limit_is_higher() -> None:
    dog, clock = watched()
    clock.now = 99.0
    assert dog.check() is None
    clock.now = 101.0
    assert dog.check() == "no progress for 101 s in phase start; the limit is 100 s"


def test_the_limit_is_the_timeout_or_a_multiple_of_the_median_update() -> None:
    dog, clock = watched()
    for seconds, limit in ((1.0, 10.0), (8.0, 22.5), (8.0, 40.0)):
        clock.now += seconds
        dog.beat("update", step=True)
        assert dog.limit_seconds == limit


def test_a_beat_is_news_whatever_the_phase() -> None:
    dog, clock = watched()
    dog.beat("update", step=True)
    for _ in range(5):
        clock.now += 9.0
        assert dog.check() is None
        dog.beat("evaluation")
    clock.now += 11.0
    assert "phase evaluation" in str(dog.check())


def test_a_process_that_hangs_leaves_its_stacks_and_ends() -> None:
    hangs = (
        "import threading\n"
        "from hatchery_jobs.pretrain.distributed.watchdog import Watchdog\n"
        "def waits_for_ever(): threading.Event().wait()\n"
        "with Watchdog(0.2, print) as dog:\n"
        "    dog.beat('update', step=True)\n"
        "    waits_for_ever()\n"
    )
    ended = subprocess.run([sys.executable, "-c", hangs], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == EXIT_CODE
    assert "waits_for_ever" in ended.stderr
