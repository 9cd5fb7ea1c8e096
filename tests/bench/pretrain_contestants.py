"""The training loops that are compared: ours, transformers' Trainer, and a bare loop over a hand-written GPT.

One of them as a contestant: `python -m tests.bench.pretrain_contestants NAME LAYERS ROOT`.
"""

import json
import logging
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from tests.bench.turns import Step, take_turns
from tests.support.jobs.tokens import write_store
from tests.support.jobs.training_loop import train
from tokenizers import Tokenizer, models
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from hatchery_api.contract import HubTarget, JobInput, Output
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.launcher.protocol import WorkerSpec
from hatchery_jobs.pretrain.state import Times
from hatchery_jobs.pretrain.training import loop
from hatchery_jobs.pretrain.training.trainer import Trainer as OurTrainer

HEADS, WIDTH, LENGTH, ROWS, VOCAB = 4, 128, 128, 16, 1024
TOKENS, VALIDATION_TOKENS = 400_000, 4_000
WARM_STEPS = 3
PEAK_LR = 5e-4
FOREVER = 1_000_000
"""Steps of loops that are ended from outside."""


def made_up_tokens() -> np.ndarray:
    """Tokens of a corpus, without end-of-text."""
    return np.random.default_rng(1).integers(1, VOCAB, TOKENS)


def write_inputs(root: Path, tokens: np.ndarray) -> None:
    """A store and a tokenizer as the train stage finds them."""
    for folder in ("tokens", "tokenizer"):
        (root / folder).mkdir()
    documents = tokens.reshape(-1, 1000)
    validation = documents[: VALIDATION_TOKENS // 1000]
    write_store(root / "tokens", [{"train": [documents], "validation": [validation]}], length=LENGTH, vocab_size=VOCAB)
    words = {"<|endoftext|>": 0} | {f"w{number}": number for number in range(1, VOCAB)}
    Tokenizer(models.WordLevel(words, unk_token="<|endoftext|>")).save(str(root / "tokenizer" / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (root / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(config))


def worker_spec(root: Path, name: str, layers: int, **changes: object) -> WorkerSpec:
    """A run of ours over these inputs, without evaluation; everything else is as it comes."""
    spec = {
        "corpora": [{"corpusRef": {"name": "c"}}],
        "tokenizerRef": {"name": "t"},
        "model": {"size": "tiny", "overrides": {"layers": layers, "heads": HEADS, "hiddenSize": WIDTH}},
        "data": {"sequenceLength": LENGTH},
        "schedule": {"steps": FOREVER, "peakLr": PEAK_LR},
        "batch": {"sequences": ROWS, "perDevice": ROWS},
        "checkpoint": {"everySteps": FOREVER},
        "evaluate": {"batches": 0},
    }
    job = JobInput[PretrainRunSpec](
        kind="PretrainRun", namespace="n", name=name, uid="u", stage="train", attempt=1,
        spec=PretrainRunSpec.model_validate(spec | changes),
        output=Output(root=str(root)), hub=HubTarget(endpoint="http://localhost"),
    )  # fmt: skip
    folder, local_folder = root / name, root / f"{name}-local"
    for path in (folder, local_folder):
        path.mkdir()
    return WorkerSpec(
        job=job,
        tokens=root / "tokens",
        tokenizer=root / "tokenizer",
        folder=folder,
        local_folder=local_folder,
        first_node=True,
        metrics_port=0,
    )


@dataclass
class Ours:
    """Our loop as a worker runs it, record and watchdog included, and where the time of its iterations goes."""

    worker: WorkerSpec
    iterations: list[float] = field(default_factory=list)
    """Wall seconds from one update's beginning to the next one's."""
    times: list[Times] = field(default_factory=list)
    """What the loop says of the same."""

    def __call__(self, step: Step) -> None:
        """Trains until it is ended."""
        original, began = loop.learn, 0.0

        def learn(run: OurTrainer) -> loop.Update:
            nonlocal began
            if self.times:
                self.iterations.append(time.monotonic() - began)
            step()
            began = time.monotonic()
            update = original(run)
            self.times.append(update.times)
            return update

        with mock.patch.object(loop, "learn", learn):
            train(self.worker)

    def shares(self) -> tuple[float, float]:
        """Shares of the iterations after the first ones: outside forward, backward and optimizer; waiting for data."""
        pairs = list(zip(self.iterations, self.times, strict=False))[WARM_STEPS:]
        total = math.fsum(seconds for seconds, _ in pairs)
        used = math.fsum(times.compute + times.optimizer for _, times in pairs)
        return 1 - used / total, math.fsum(times.data for _, times in pairs) / total


class Turn(TrainerCallback):
    """Asks for the turn before every step of a Trainer."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def on_step_begin(self, *_: object, **__: object) -> None:
        self._step()


def trainer(folder: Path, layers: int, activation: str) -> Callable[[Step], None]:
    """transformers' Trainer over GPT-2 as the library has it, without dropout; rows in memory, progress bar off."""
    tokens = made_up_tokens()
    rows = [torch.from_numpy(row) for row in tokens[: len(tokens) // LENGTH * LENGTH].reshape(-1, LENGTH)]
    data = [{"input_ids": row, "labels": row} for row in rows]
    settings = trainer_settings(folder, per_device_train_batch_size=ROWS, max_steps=FOREVER, learning_rate=PEAK_LR)

    def run(step: Step) -> None:
        model = library_gpt2(layers, LENGTH, activation)
        Trainer(model=model, args=settings, train_dataset=data, callbacks=[Turn(step)]).train()

    return run


def library_gpt2(layers: int, positions: int, activation: str = "gelu_new") -> GPT2LMHeadModel:
    """GPT-2 as the library has it, without dropout."""
    none = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}
    config = GPT2Config(
        vocab_size=VOCAB, n_positions=positions, n_embd=WIDTH, n_layer=layers, n_head=HEADS, bos_token_id=0,
        eos_token_id=0, activation_function=activation, **none,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def trainer_settings(folder: Path, **own: Any) -> TrainingArguments:
    """Settings of the library's Trainer: our weight decay and fused AdamW, nothing reported or saved."""
    return TrainingArguments(
        output_dir=str(folder), weight_decay=0.1, report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True,
        dataloader_pin_memory=False, optim="adamw_torch_fused", **own,
    )  # fmt: skip


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

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.tokens, self.positions = torch.nn.Embedding(VOCAB, WIDTH), torch.nn.Embedding(LENGTH, WIDTH)
        self.blocks, self.norm = torch.nn.Sequential(*(Block() for _ in range(layers))), torch.nn.LayerNorm(WIDTH)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.02)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        return F.linear(self.norm(self.blocks(x)), self.tokens.weight)


def bare(path: Path, layers: int) -> Callable[[Step], None]:
    """nanoGPT's loop: rows from a memory-mapped file, rate, clipping, update, the loss as a number."""

    def run(step: Step) -> None:
        torch.manual_seed(1)
        model, random, number = Bare(layers), np.random.default_rng(1), 0
        groups = [
            {"params": [p for p in model.parameters() if (p.dim() > 1) == matrix], "weight_decay": 0.1 * matrix}
            for matrix in (True, False)
        ]
        optimizer = torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.95), fused=True)
        while True:
            step()
            tokens = np.memmap(path, dtype="<u2", mode="r")
            starts = random.integers(0, len(tokens) - LENGTH - 1, ROWS)
            rows = torch.from_numpy(np.stack([tokens[s : s + LENGTH + 1].astype(np.int64) for s in starts]))
            for group in optimizer.param_groups:
                group["lr"] = PEAK_LR * 0.5 * (1 + math.cos(math.pi * number / FOREVER))
            loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            assert math.isfinite(loss.item())
            number += 1

    return run


def main(name: str, layers: int, root: Path) -> None:
    """Takes turns as one of the loops; ours reports its shares."""
    logging.disable(logging.WARNING)
    disable_progress_bar()
    match name:
        case "ours":
            us = Ours(worker_spec(root, f"l{layers}", layers))
            take_turns(us, us.shares)
        case "bare":
            take_turns(bare(root / "tokens" / "0-train-00000.tokens", layers))
        case activation:
            take_turns(trainer(root / activation, layers, activation))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
