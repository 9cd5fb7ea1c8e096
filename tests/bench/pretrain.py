"""Tokens per CPU second of the training loop, beside transformers' Trainer and a bare loop over a hand-written GPT.

Run: python -m tests.bench.pretrain. One thread each; each loop runs as its users run it and stops after a few steps to
let the next one go on, so that other work on the machine meets all of them. The bars are medians of the ratios within a
round, since absolute numbers belong to a machine. The last bar is of two workers beside one, which take turns of some
seconds too; it is in wall time, so other load distorts it.
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.bars import bar, print_machine
from tests.bench.pretrain_contestants import LENGTH, ROWS, WARM_STEPS, made_up_tokens, worker_spec, write_inputs
from tests.bench.turns import Contestant
from tests.support.jobs.training_loop import started

from hatchery_jobs.pretrain.launcher.launcher import worker_environment
from hatchery_jobs.pretrain.record import TIMELINE, Event, EventLine, read_timeline
from hatchery_jobs.runtime import RECORD

DEPTHS = (2, 4)
ROUNDS, STEPS = 20, 4
LOOPS = {
    "ours": "ours",
    "trainer": "gelu_new",
    "trainer, fused activation": "gelu_pytorch_tanh",
    "bare": "bare",
}
"""What is compared, by the names of the contestants' module."""
TURNS, TURN_SECONDS = 12, 3.0
TRAINER_GOAL, BARE_GOAL, OUTSIDE_GOAL, DATA_GOAL, SCALING_GOAL = 1.20, 0.95, 0.03, 0.01, 1.5


def compare(root: Path, layers: int) -> None:
    """The bars of one depth."""
    as_users_do = {**os.environ, "OMP_NUM_THREADS": "1"}
    as_in_a_pod = worker_environment(as_users_do, processes=1)
    seconds: dict[str, list[float]] = {name: [] for name in LOOPS}
    with ExitStack() as stack:
        contestants = {}
        for name, loop in LOOPS.items():
            command = [sys.executable, "-m", "tests.bench.pretrain_contestants", loop, str(layers), str(root)]
            environment = as_in_a_pod if name == "ours" else as_users_do
            contestants[name] = stack.enter_context(Contestant(command, environment))
        for contestant in contestants.values():
            contestant.play(WARM_STEPS)
        for number in range(ROUNDS):
            names = list(contestants)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                seconds[name].append(contestants[name].play(STEPS))
        outside, data = contestants["ours"].end()
    for name, values in seconds.items():
        speed = STEPS * ROWS * LENGTH / statistics.median(values)
        ratio = statistics.median(theirs / ours for ours, theirs in zip(seconds["ours"], values, strict=True))
        print(f"L{layers} {name}: {speed:,.0f} tokens per CPU second; ours {ratio:.3f} times as many")
    for name, goal in (("trainer", TRAINER_GOAL), ("bare", BARE_GOAL)):
        ratios = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds[name], strict=True)]
        bar(f"ours-over-{name}-l{layers}", statistics.median(ratios), goal)
    bar(f"time-outside-share-l{layers}", outside, OUTSIDE_GOAL, below=True)
    bar(f"data-wait-share-l{layers}", data, DATA_GOAL, below=True)


class Workers:
    """Processes of one run, which work only in their turns."""

    def __init__(self, processes: list[subprocess.Popen[bytes]], timeline: Path) -> None:
        """Waits until they have done some updates."""
        self._processes, self._timeline = processes, timeline
        while len(self._updates()) < WARM_STEPS:
            time.sleep(0.1)
        self._signal(signal.SIGSTOP)

    def play(self, seconds: float) -> float:
        """Tokens per wall second of a turn, from its first update to its last."""
        began = time.time()
        self._signal(signal.SIGCONT)
        time.sleep(seconds)
        self._signal(signal.SIGSTOP)
        return tokens_per_second(self._updates(), began)

    def _updates(self) -> list[EventLine]:
        return [line for line in read_timeline(self._timeline) if line["event"] == Event.UPDATE]

    def _signal(self, number: int) -> None:
        for process in self._processes:
            process.send_signal(number)


def tokens_per_second(updates: list[EventLine], began: float) -> float:
    """Speed from the first update of a turn to the last; what came before the first was partly done in the pause."""
    turn = [line for line in updates if line["time"] > began]
    return float(turn[0]["tokens"] * (len(turn) - 1) / (turn[-1]["time"] - turn[0]["time"]))


@contextmanager
def at_work(root: Path, number: int) -> Iterator[Workers]:
    """Workers that share a global batch of two micro-batches."""
    worker = worker_spec(root, f"w{number}", DEPTHS[0], batch={"sequences": 2 * ROWS, "perDevice": ROWS})
    with started(worker, number) as processes:
        yield Workers(processes, worker.folder / RECORD / TIMELINE)


def scaling(root: Path) -> None:
    """The bar of two workers beside one."""
    with at_work(root, 1) as one, at_work(root, 2) as two:
        speeds = [(one.play(TURN_SECONDS), two.play(TURN_SECONDS)) for _ in range(TURNS)]
    for workers, values in zip((1, 2), zip(*speeds, strict=True), strict=True):
        print(f"workers {workers}: {', '.join(f'{speed:,.0f}' for speed in values)} tokens per wall second")
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}: other load distorts wall time")
    bar("two-processes-over-one", statistics.median(both / alone for alone, both in speeds), SCALING_GOAL)


def main() -> None:
    """Prints all bars."""
    print_machine()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_inputs(root, made_up_tokens())
        for layers in DEPTHS:
            compare(root, layers)
        scaling(root)


if __name__ == "__main__":
    main()
