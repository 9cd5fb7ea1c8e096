"""How long a checkpoint of GPT-2's 111.0M parameters with AdamW's state stops training, in the background and not.

Run: python -m tests.bench.checkpoint. One thread, the two in turn, medians of rounds. A training stand-in (matrix
products, one step after another) runs after each asynchronous save, so that its slowdown by the writing is seen too.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from tests.bench.bars import bar, print_machine
from transformers import GPT2Config, GPT2LMHeadModel

from hatchery_jobs.pretrain.checkpoint.snapshot import Leaves, take_snapshot
from hatchery_jobs.pretrain.checkpoint.store import Checkpoints
from hatchery_jobs.pretrain.checkpoint.writer import CheckpointWriter
from hatchery_jobs.pretrain.state import RunState
from hatchery_jobs.runtime import RetryableError

VOCABULARY, ROUNDS, STEP_WIDTH, STEPS = 32_768, 5, 384, 8
STALL_GOAL = 0.10


def made() -> tuple[GPT2LMHeadModel, torch.optim.AdamW]:
    """The model and its optimizer after one update."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def compute() -> None:
    """A training stand-in: arithmetic in Python-driven pieces, which want the interpreter's lock again and again."""
    x = torch.eye(STEP_WIDTH)
    for _ in range(STEPS * 16):
        x = torch.mm(x, x)


def wall(work: Callable[[], object]) -> float:
    """Wall seconds of a piece of work: a stall is wall time, whatever was waited for."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def unforeseen(_: RunState, error: RetryableError) -> None:
    """A failed write makes the figures meaningless."""
    raise error


def main() -> None:
    """Runs both in turn and prints the bar."""
    torch.set_num_threads(1)
    print_machine()
    model, optimizer = made()
    times: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=os.environ.get("HATCHERY_BENCH_FOLDER")) as name:
        writers = {
            mode: CheckpointWriter(
                Checkpoints(Path(name) / mode, 1),
                lambda *_: None,
                unforeseen,
                asynchronous=mode == "asynchronous",
            )
            for mode in ("synchronous", "asynchronous")
        }
        for writer in writers.values():
            writer.reserve(take_snapshot(model, optimizer))

        def save(mode: str, step: int) -> float:
            return wall(lambda: writers[mode].save(RunState(step=step), take_snapshot(model, optimizer)))

        def arithmetic(when: str) -> None:
            began = time.thread_time()
            times[when].append(wall(compute))
            times[f"{when}, CPU"].append(time.thread_time() - began)

        for number in range(1, ROUNDS + 1):
            times["take_snapshot"].append(wall(lambda: take_snapshot(model, optimizer)))
            times["synchronous"].append(save("synchronous", number))
            arithmetic("alone")
            times["asynchronous"].append(save("asynchronous", number))
            arithmetic("beside")
            writers["asynchronous"].finish()
        size = sum(path.stat().st_size for path in (Path(name) / "asynchronous").rglob("*") if path.is_file())
        for writer in writers.values():
            writer.close()
    medians = {what: statistics.median(values) for what, values in times.items()}
    snapshot = take_snapshot(model, optimizer)
    copied = sum(tensor.nbytes for tensor in Leaves.of(snapshot).tensors())
    print(f"{model.num_parameters():,} parameters; {copied:,} bytes copied, {size:,} bytes written; {ROUNDS} rounds")
    print(f"synchronous save: {medians['synchronous']:.3f} s; asynchronous: {medians['asynchronous']:.3f} s")
    print(f"of which gathering names: {medians['take_snapshot']:.4f} s")
    print(
        f"arithmetic beside the write: {medians['beside'] / medians['alone']:.2f} times its wall time alone, "
        f"{medians['beside, CPU'] / medians['alone, CPU']:.2f} times its CPU time"
    )
    print(f"load average {os.getloadavg()[0]:.1f}")
    share = statistics.median(a / s for a, s in zip(times["asynchronous"], times["synchronous"], strict=True))
    bar("checkpoint-stall-share", share, STALL_GOAL, below=True)


if __name__ == "__main__":
    main()
