"""What small models learn in 1,000 steps of 1,024 tokens from the sources of Python's standard library.

Run: python -m tests.bench.learning. Text becomes tokens in the real encode stage and models in the real loop, on one
thread and in about a minute each. The loss is over the whole validation split; its files differ much (tables of encodings are
easy), and so do the libraries of two versions of Python: compare figures of one version only.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import math
import tempfile
import threading
import time
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from tests.bench.bars import bar, print_machine
from tests.bench.library import inputs, learn_merges, sources, split
from tests.bench.pretrain_contestants import library_gpt2, trainer_settings
from tests.support.jobs.training_loop import train
from tokenizers import Tokenizer
from transformers import Trainer

from hatchery_api.contract import HubTarget, JobInput, Output
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_api.resources.tokenizer import PreTokenizer, TokenizerBlocks
from hatchery_api.status import InputRecord
from hatchery_jobs.pretrain import encode
from hatchery_jobs.pretrain.data.token_store import TokenStore
from hatchery_jobs.pretrain.launcher.protocol import WorkerSpec
from hatchery_jobs.runtime import Context, ProgressReporter
from hatchery_jobs.tokenizer.blocks import untrained

VOCAB, LENGTH, STEPS = 1024, 128, 1000
PEAK_LR = 3e-3
LOSS_GOAL, BITS_GOAL = 3.10, 1.83
FAMILIES = ("gpt2", "llama")

CODE = r"\r?\n[ \t]*|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"
"""A line's end and the next one's indentation are one piece; words take the sign or space before them along."""

SPEC = {
    "corpora": [{"corpusRef": {"name": "library"}}],
    "tokenizerRef": {"name": "code"},
    "model": {"size": "tiny", "overrides": {"layers": 2, "heads": 4, "hiddenSize": 128}},
    "data": {"sequenceLength": LENGTH},
    "schedule": {"steps": STEPS, "warmupSteps": STEPS // 20, "peakLr": PEAK_LR, "minLr": PEAK_LR / 10},
    "optimizer": {"weightDecay": 0.1},
    "batch": {"sequences": 8, "perDevice": 8},
    "evaluate": {"everySteps": STEPS // 4},
}


def tokenizer(texts: list[str]) -> Tokenizer:
    """A byte-level tokenizer that knows lines and indentation."""
    pre_tokenizers = [PreTokenizer(type="Split", pattern=CODE), PreTokenizer(type="ByteLevel", use_regex=False)]
    made = untrained(TokenizerBlocks(pre_tokenizers=pre_tokenizers), None)
    learn_merges(made, texts, VOCAB)
    return made


def context(root: Path, stage: str, records: list[InputRecord], family: str) -> Context[PretrainRunSpec]:
    """A stage of the run of a family."""
    model = {**SPEC["model"], "architecture": family}
    job = JobInput[PretrainRunSpec](
        kind="PretrainRun", namespace="n", name="r", uid="u", stage=stage, attempt=1, inputs=records,
        spec=PretrainRunSpec.model_validate({**SPEC, "model": model}), output=Output(root=str(root / "run")),
        hub=HubTarget(endpoint="http://localhost"),
    )  # fmt: skip
    return Context(job=job, progress=ProgressReporter(stage), scratch=root, stop=threading.Event())


def learn(root: Path, records: list[InputRecord], family: str) -> TokenStore:
    """Trains a model of a family, and prints its bars; the tokens it learnt from."""
    encoded = encode.run(context(root, "encode", records, family))
    folder, local_folder = root / family, root / f"{family}-local"
    folder.mkdir()
    local_folder.mkdir()
    worker = WorkerSpec(
        job=context(root, "train", records, family).job,
        tokens=encoded.folder,
        tokenizer=Path(records[1].uri),
        folder=folder,
        local_folder=local_folder,
        first_node=True,
        metrics_port=0,
    )
    began = time.process_time()
    result = train(worker).result
    seconds = time.process_time() - began
    store = TokenStore(encoded.folder, LENGTH)
    for split_name, facts in store.index.splits.items():
        print(f"{split_name}: {facts.documents} files, {facts.text_bytes:,} bytes, {facts.tokens:,} tokens")
    assert result.loss
    print(f"{result.parameters:,} parameters, {result.tokens:,} tokens, {seconds:.0f} CPU seconds with measurements")
    print(f"validation loss before the first update {result.loss.initial:.3f}, uniform {math.log(VOCAB):.3f}")
    bar(f"stdlib-validation-loss-{family}", result.loss.eval or math.nan, LOSS_GOAL, below=True)
    bar(f"stdlib-bits-per-byte-{family}", result.bits_per_byte or math.nan, BITS_GOAL, below=True)
    return store


def peer(store: TokenStore, folder: Path) -> float:
    """Validation loss of transformers' GPT-2 of the same size after as many steps of its Trainer, without dropout."""
    model = library_gpt2(layers=2, positions=LENGTH + 1)
    settings = trainer_settings(
        folder, per_device_train_batch_size=8, max_steps=STEPS, learning_rate=PEAK_LR, adam_beta2=0.95,
        lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr": PEAK_LR / 10}, warmup_steps=STEPS // 20,
    )  # fmt: skip
    rows = torch.from_numpy(store.rows("train", range(store.sequences("train"))).tokens)
    Trainer(model=model, args=settings, train_dataset=[{"input_ids": row, "labels": row} for row in rows]).train()
    measured = torch.from_numpy(store.rows("validation", range(store.sequences("validation"))).tokens)
    with torch.no_grad():
        sums = [
            F.cross_entropy(model.eval()(some[:, :-1]).logits.flatten(0, 1), some[:, 1:].flatten(), reduction="sum")
            for some in measured.split(32)
        ]
    return math.fsum(map(float, sums)) / measured[:, 1:].numel()


def main() -> None:
    """Trains both causal families and the peer, and prints the bars."""
    torch.set_num_threads(1)
    print_machine()
    train_texts, validation_texts = split(sources())
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        records = inputs(root, train_texts, validation_texts, tokenizer(train_texts))
        stores = [learn(root, records, family) for family in FAMILIES]
        print(f"validation loss of GPT-2 by transformers' Trainer {peer(stores[0], root / 'peer'):.3f}")
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
