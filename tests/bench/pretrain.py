"""Tokens per CPU second of the training loop, beside transformers' Trainer and a bare loop over a hand-written GPT.

Run: python tests/bench/pretrain.py. One process, one thread, the three in turn, so that other work on the machine meets
all of them; medians of rounds. The bars are ratios, since absolute numbers belong to a machine.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from hatchery_api.contract import HubTarget, JobInput, Output
from hatchery_api.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain import loop
from hatchery_jobs.pretrain.data import INDEX, Shard, SplitIndex, TokenIndex
from hatchery_jobs.pretrain.orders import WorkOrder
from hatchery_jobs.pretrain.trainer import prepare

LAYERS, HEADS, WIDTH, LENGTH, ROWS, VOCAB = 2, 4, 128, 128, 16, 1024
ROUNDS, STEPS, WARM_STEPS = 7, 10, 3
TRAINER_GOAL, BARE_GOAL, DATA_GOAL = 1.15, 0.90, 0.01
TOKENS = 200_000


def write_tokens(folder: Path) -> np.ndarray:
    """Shards of made-up tokens."""
    tokens = np.random.default_rng(1).integers(0, VOCAB, TOKENS).astype("<u2")
    splits = {}
    for split in ("train", "validation"):
        tokens.tofile(folder / f"{split}-00000.bin")
        shards = [Shard(file=f"{split}-00000.bin", tokens=TOKENS)]
        splits[split] = SplitIndex(documents=1, tokens=TOKENS, text_bytes=TOKENS, shards=shards)
    index = TokenIndex(dtype="uint16", vocab_size=VOCAB, eos_id=0, splits=splits)
    (folder / INDEX).write_text(index.model_dump_json(by_alias=True))
    return tokens.astype(np.int64)


def ours(folder: Path) -> tuple[Callable[[], float], Callable[[], float]]:
    """One round of our loop, and the share of its time spent on data."""
    spec = PretrainRunSpec.model_validate(
        {
            "corpora": [{"corpusRef": {"name": "c"}}],
            "tokenizerRef": {"name": "t"},
            "model": {"size": "tiny", "overrides": {"layers": LAYERS, "heads": HEADS, "hiddenSize": WIDTH}},
            "data": {"sequenceLength": LENGTH},
            "schedule": {"steps": 100_000},
            "batch": {"sequences": ROWS, "perDevice": ROWS},
        }
    )
    job = JobInput[PretrainRunSpec](
        kind="PretrainRun", namespace="n", name="r", uid="u", stage="train", attempt=1, spec=spec,
        output=Output(root="."), hub=HubTarget(endpoint="http://localhost"),
    )  # fmt: skip
    order = WorkOrder(job=job, tokens=folder, folder=folder, signs=folder, first_node=True, metrics_port=0)
    run = prepare(order)
    seconds, data_seconds = [1e-9], [0.0]

    def step() -> None:
        update = loop.learn(run, run.state.step)
        run.advance(
            step=run.state.step + 1, train_loss=update.loss, train_seconds=run.state.train_seconds + update.seconds
        )
        run.recorder.updated(run.state, update)
        seconds.append(update.seconds)
        data_seconds.append(update.data_seconds)

    return lambda: timed(step), lambda: sum(data_seconds) / sum(seconds)


def timed(step: Callable[[], None]) -> float:
    """Tokens per CPU second of one round."""
    for _ in range(WARM_STEPS):
        step()
    began = time.process_time()
    for _ in range(STEPS):
        step()
    return STEPS * ROWS * LENGTH / (time.process_time() - began)


class Clock(TrainerCallback):
    """Times the steps of a Trainer after the warm ones."""

    began = ended = 0.0

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == WARM_STEPS:
            self.began = time.process_time()

    def on_step_end(self, args, state, control, **_):
        if state.global_step == WARM_STEPS + STEPS:
            self.ended = time.process_time()


def trainer_round(tokens: np.ndarray, folder: Path) -> float:
    """One round of transformers' Trainer with GPT-2's defaults."""
    rows = [torch.from_numpy(tokens[n * LENGTH : (n + 1) * LENGTH]) for n in range(len(tokens) // LENGTH)]
    data = [{"input_ids": row, "labels": row} for row in rows]
    none = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}
    config = GPT2Config(vocab_size=VOCAB, n_positions=LENGTH, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, **none)
    clock = Clock()
    settings = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=ROWS, max_steps=WARM_STEPS + STEPS, learning_rate=5e-4,
        report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True, use_cpu=True, optim="adamw_torch_fused",
    )  # fmt: skip
    stdout, sys.stdout = sys.stdout, Path(os.devnull).open("w")  # noqa: SIM115 - its log goes nowhere
    try:
        Trainer(model=GPT2LMHeadModel(config), args=settings, train_dataset=data, callbacks=[clock]).train()
    finally:
        sys.stdout.close()
        sys.stdout = stdout
    return STEPS * ROWS * LENGTH / (clock.ended - clock.began)


class Block(torch.nn.Module):
    """A transformer block in as little code as it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)
        self.qkv, self.out = torch.nn.Linear(WIDTH, 3 * WIDTH), torch.nn.Linear(WIDTH, WIDTH)
        self.up, self.down = torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.qkv(self.first(x)).view(*x.shape[:2], 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.second(x)), approximate="tanh"))


class Bare(torch.nn.Module):
    """A GPT without any library around it."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = torch.nn.Embedding(VOCAB, WIDTH), torch.nn.Embedding(LENGTH, WIDTH)
        self.blocks, self.norm = torch.nn.Sequential(*(Block() for _ in range(LAYERS))), torch.nn.LayerNorm(WIDTH)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        return F.linear(self.norm(self.blocks(x)), self.tokens.weight)


def bare(tokens: np.ndarray) -> Callable[[], float]:
    """One round of a bare loop with everything a loop must do: data, rate, clipping, update, loss."""
    model, random = Bare(), np.random.default_rng(1)
    groups = [
        {"params": [p for p in model.parameters() if (p.dim() > 1) == m], "weight_decay": 0.1 * m}
        for m in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=5e-4, betas=(0.9, 0.95), fused=True)

    def step() -> None:
        starts = random.integers(0, len(tokens) - LENGTH - 1, ROWS)
        rows = torch.from_numpy(np.stack([tokens[s : s + LENGTH + 1] for s in starts]))
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert math.isfinite(loss.item())

    return lambda: timed(step)


def bar(name: str, value: float, goal: float, *, below: bool = False) -> None:
    """Prints one bar."""
    passed = value <= goal if below else value >= goal
    print(f"bar {name} {value:.3f} {goal} {'pass' if passed else 'short'}")


def main() -> None:
    """Runs the three in turn and prints the bars."""
    torch.set_num_threads(1)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokens = write_tokens(folder)
        our_round, data_share = ours(folder)
        rounds = {"ours": our_round, "trainer": lambda: trainer_round(tokens, folder), "bare": bare(tokens)}
        speeds: dict[str, list[float]] = {who: [] for who in rounds}
        for _ in range(ROUNDS):
            for who, play in rounds.items():
                speeds[who].append(play())
        share = data_share()
    medians = {who: statistics.median(values) for who, values in speeds.items()}
    for who, value in medians.items():
        print(f"{who}: {value:,.0f} tokens per CPU second (median of {ROUNDS} rounds of {STEPS} steps)")
    print(f"load average {os.getloadavg()[0]:.1f}")
    pairs = list(zip(speeds["ours"], speeds["trainer"], speeds["bare"], strict=True))
    bar("ours/trainer", statistics.median(o / t for o, t, _ in pairs), TRAINER_GOAL)
    bar("ours/bare", statistics.median(o / b for o, _, b in pairs), BARE_GOAL)
    bar("data-share", share, DATA_GOAL, below=True)


if __name__ == "__main__":
    main()
