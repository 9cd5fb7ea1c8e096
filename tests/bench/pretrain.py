"""Tokens per CPU second of the training loop, beside transformers' Trainer and a bare loop over a hand-written GPT.

Run: python -m tests.bench.pretrain. One process, one thread; each loop runs as its users run it and stops after a few
steps to let the next one go on, so that other work on the machine meets all of them. The bars are medians of the ratios
within a round, since absolute numbers belong to a machine. The last bar is of two workers beside one and in wall time,
so other load distorts it.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import logging
import statistics
import tempfile
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import torch
from tests.bench.bars import bar, print_machine
from tests.bench.pretrain_contestants import (
    LENGTH,
    ROWS,
    Ours,
    bare,
    made_up_tokens,
    trainer,
    work_order,
    write_inputs,
)
from tests.bench.turns import Contestant
from tests.support.training_loop import train_together
from transformers.utils.logging import disable_progress_bar

from hatchery_jobs.artifacts import RECORD
from hatchery_jobs.pretrain.timeline import TIMELINE, UPDATE, Line, read_timeline

DEPTHS = (2, 4)
ROUNDS, STEPS, WARM_STEPS = 20, 4, 3
PAIRS, PAIR_STEPS = 5, 60
TRAINER_GOAL, BARE_GOAL, OUTSIDE_GOAL, DATA_GOAL, SCALING_GOAL = 1.20, 0.95, 0.03, 0.01, 1.5


def compare(root: Path, layers: int) -> None:
    """The bars of one depth."""
    tokens = made_up_tokens()
    us = Ours(work_order(root, f"l{layers}", layers))
    loops = {
        "ours": us,
        "trainer": trainer(tokens, root / "trainer", layers),
        "trainer, fused activation": trainer(tokens, root / "trainer", layers, "gelu_pytorch_tanh"),
        "bare": bare(root / "tokens" / "0-train-00000.tokens", layers),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    with ExitStack() as stack:
        contestants = {name: stack.enter_context(Contestant(train)) for name, train in loops.items()}
        for contestant in contestants.values():
            contestant.play(WARM_STEPS)
        for number in range(ROUNDS):
            names = list(contestants)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                seconds[name].append(contestants[name].play(STEPS))
    for name, values in seconds.items():
        speed = STEPS * ROWS * LENGTH / statistics.median(values)
        ratio = statistics.median(theirs / ours for ours, theirs in zip(seconds["ours"], values, strict=True))
        print(f"L{layers} {name}: {speed:,.0f} tokens per CPU second; ours {ratio:.3f} times as many")
    for name, goal in (("trainer", TRAINER_GOAL), ("bare", BARE_GOAL)):
        ratios = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds[name], strict=True)]
        bar(f"ours-over-{name}-l{layers}", statistics.median(ratios), goal)
    outside, data = us.shares(WARM_STEPS)
    bar(f"time-outside-share-l{layers}", outside, OUTSIDE_GOAL, below=True)
    bar(f"data-wait-share-l{layers}", data, DATA_GOAL, below=True)


def speed_together(root: Path, workers: int, number: int) -> float:
    """Tokens per wall second of workers that share a global batch of two micro-batches."""
    batch = {"sequences": 2 * ROWS, "perDevice": ROWS}
    schedule = {"steps": PAIR_STEPS, "peakLr": 5e-4}
    order = work_order(root, f"w{workers}-{number}", DEPTHS[0], batch=batch, schedule=schedule)
    train_together(order, workers)
    return tokens_per_second(read_timeline(order.folder / RECORD / TIMELINE))


def tokens_per_second(lines: list[Line]) -> float:
    """Speed of a timeline's updates after the first ones, by the fastest quarter: other work can only slow one down."""
    updates = [line for line in lines if line["event"] == UPDATE][WARM_STEPS:]
    seconds = [later["time"] - earlier["time"] for earlier, later in pairwise(updates)]
    return float(updates[0]["tokens"] / statistics.quantiles(seconds, n=4)[0])


def scaling(root: Path) -> None:
    """The bar of two workers."""
    pairs = [(speed_together(root, 1, number), speed_together(root, 2, number)) for number in range(PAIRS)]
    for workers, speeds in zip((1, 2), zip(*pairs, strict=True), strict=True):
        print(f"workers {workers}: {', '.join(f'{speed:,.0f}' for speed in speeds)} tokens per wall second")
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}: other load distorts wall time")
    bar("two-processes-over-one", statistics.median(two / one for one, two in pairs), SCALING_GOAL)


def main() -> None:
    """Prints all bars."""
    torch.set_num_threads(1)
    disable_progress_bar()
    logging.disable(logging.WARNING)
    print_machine()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_inputs(root, made_up_tokens())
        for layers in DEPTHS:
            compare(root, layers)
        scaling(root)


if __name__ == "__main__":
    main()
