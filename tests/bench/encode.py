"""The token store beside what most people do: encoding, seeking, memory.

Run: python -m tests.bench.encode. One processor, process CPU time; contestants take turns, medians of rounds. The sources
of Python's standard library are encoded by our whole stage, checks and hashes included, and by `datasets.map` with the
fast tokenizer followed by concatenate-and-chunk as the well-known course has it. Absolute numbers belong to a machine;
the bars are ratios.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import accumulate, chain, count
from pathlib import Path

import datasets
import numpy as np
from tests.bench.bars import bar, print_machine
from tests.bench.library import EOS, inputs, learn_merges, sources
from tests.support.jobs.tokens import write_store
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hatchery_api.contract import HubTarget, JobInput, Output
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_api.status import InputRecord
from hatchery_jobs.pretrain import encode
from hatchery_jobs.pretrain.data.loader import StoreSource
from hatchery_jobs.pretrain.data.token_store import INDEX, CorpusIndex, Shard, TokenIndex, TokenStore, summed
from hatchery_jobs.runtime import Context, ProgressReporter

ROUNDS, LENGTH, VOCAB = 5, 128, 8192
TEXT_BYTES = 6_000_000
BATCH_ROWS = 192
EARLY_STEP, LATE_STEP = 10, 1_000_000
SHARD_TOKENS = 1_000_000
READ_ROWS = 4000
ENCODE_GOAL, SEEK_GOAL, MEMORY_GOAL_MIB = 4.0, 1.5, 1.0


def library_texts() -> list[str]:
    """Sources of the standard library, a part of them that does not depend on how many there are."""
    texts = sources()
    sizes = accumulate(len(text.encode()) for text in texts)
    return texts[: next(number for number, size in enumerate(sizes, 1) if size > TEXT_BYTES)]


def artifacts(root: Path, texts: list[str]) -> list[InputRecord]:
    """A corpus and a tokenizer."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    learn_merges(made, texts[::3], VOCAB)
    return inputs(root, texts, texts[:2], made)


def our_encode(root: Path, records: list[InputRecord]) -> Callable[[], int]:
    """Our stage, from nothing; the function returns the tokens of the train split."""
    spec = {
        "corpora": [{"corpusRef": {"name": "corpus"}}],
        "tokenizerRef": {"name": "tokenizer"},
        "model": {"size": "tiny"},
        "data": {"sequenceLength": LENGTH},
        "schedule": {"steps": 1},
    }
    numbers = count()

    def play() -> int:
        folder = root / f"ours-{next(numbers)}"
        folder.mkdir()
        job = JobInput[PretrainRunSpec](
            kind="PretrainRun", namespace="n", name="r", uid="u", stage="encode", attempt=1, inputs=records,
            spec=PretrainRunSpec.model_validate(spec), output=Output(root=str(folder / "run")),
            hub=HubTarget(endpoint="http://localhost"),
        )  # fmt: skip
        outcome = encode.run(
            Context(job=job, progress=ProgressReporter("encode"), scratch=folder, stop=threading.Event())
        )
        return TokenStore(outcome.folder, LENGTH).index.splits["train"].tokens

    return play


def their_encode(root: Path, records: list[InputRecord]) -> Callable[[], int]:
    """`datasets.map` with the fast tokenizer and the course's `group_texts`; returns the tokens in whole chunks."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{records[1].uri}/tokenizer.json", eos_token=EOS)
    tokenizer.model_max_length = 10**9
    numbers = count()

    def tokenize(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return tokenizer([text + EOS for text in rows["text"]])

    def group_texts(rows: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        joined = {k: list(chain.from_iterable(rows[k])) for k in rows}  # the course's sum(…, []) is slower
        total = len(joined["input_ids"]) // LENGTH * LENGTH
        result = {k: [t[i : i + LENGTH] for i in range(0, total, LENGTH)] for k, t in joined.items()}
        result["labels"] = result["input_ids"].copy()
        return result

    def play() -> int:
        cache = str(root / f"theirs-{next(numbers)}")
        data = datasets.Dataset.from_parquet(f"{records[0].uri}/data/train-00000-of-00001.parquet", cache_dir=cache)
        encoded = data.map(tokenize, batched=True, remove_columns=["text"], load_from_cache_file=False)
        chunks = encoded.map(group_texts, batched=True, load_from_cache_file=False)
        return len(chunks) * LENGTH

    return play


def cpu_seconds(play: Callable[[], int]) -> float:
    """CPU time of this process and its threads."""
    began = time.process_time()
    play()
    return time.process_time() - began


def encode_bar(root: Path) -> None:
    """Bytes of text per CPU second, ours over theirs."""
    texts = library_texts()
    text_bytes = sum(len(text.encode()) for text in texts)
    records = artifacts(root, texts)
    contestants = {"ours": our_encode(root, records), "datasets.map": their_encode(root, records)}
    tokens = {name: play() for name, play in contestants.items()}  # also warms both up
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, play in contestants.items():
            seconds[name].append(cpu_seconds(play))
    for name, values in seconds.items():
        speed = text_bytes / 1e6 / statistics.median(values)
        print(f"{name}: {speed:.2f} MB per CPU second, {tokens[name]:,} tokens of {len(texts)} files")
    ratios = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds["datasets.map"], strict=True)]
    bar("encode-over-datasets-map", statistics.median(ratios), ENCODE_GOAL)


def synthetic_store(folder: Path, shards: int) -> TokenStore:
    """A store of empty files: `SHARD_TOKENS` tokens in 1,000 documents for each shard."""
    folder.mkdir()
    write_store(folder, [{"train": [[[1]]], "validation": [[[1]]]}], length=LENGTH)
    index = TokenIndex.model_validate_json((folder / INDEX).read_bytes())
    train = []
    for number in range(shards):
        shard = Shard(name=f"s{number}", documents=1000, tokens=SHARD_TOKENS, text_bytes=1, digest="")
        with (folder / f"{shard.name}.tokens").open("wb") as stream:
            stream.truncate(2 * SHARD_TOKENS)
        (np.arange(1001) * (SHARD_TOKENS // 1000)).astype("<u8").tofile(folder / f"{shard.name}.documents")
        train.append(shard)
    splits = {**index.corpora[0].splits, "train": summed(train, None)}
    index = index.model_copy(update={"corpora": [CorpusIndex(name="c", digest="d", splits=splits)]})
    (folder / INDEX).write_text(index.model_dump_json(by_alias=True))
    return TokenStore(folder, LENGTH)


def seek_bar(root: Path) -> None:
    """CPU time to open a store and read a batch, late in a run over early."""
    synthetic_store(root / "seek", 20)
    times: dict[int, list[float]] = {EARLY_STEP: [], LATE_STEP: []}
    for _ in range(200):
        for step, values in times.items():
            began = time.process_time()
            StoreSource(TokenStore(root / "seek", LENGTH), 1).training(step * BATCH_ROWS, BATCH_ROWS)
            values.append(time.process_time() - began)
    early, late = (statistics.median(times[step]) for step in (EARLY_STEP, LATE_STEP))
    print(f"open and read a batch: step {EARLY_STEP} {early * 1e3:.2f} ms, step {LATE_STEP} {late * 1e3:.2f} ms")
    bar("seek-late-over-early", late / early, SEEK_GOAL, below=True)


def private_bytes() -> int:
    """Resident memory that is this process's own: pages of mapped files are the system's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon:")).split()[1]) * 1024


def memory_growth(folder: Path, answer: multiprocessing.SimpleQueue) -> None:
    """What opening a store and reading random rows takes, after the first batch has brought all code in."""
    warm = StoreSource(TokenStore(folder.parent / "memory-1", LENGTH), 1)
    warm.training(0, BATCH_ROWS)
    before = private_bytes()
    feed = StoreSource(TokenStore(folder, LENGTH), 1)
    for first in range(0, READ_ROWS, BATCH_ROWS):
        feed.training(first, BATCH_ROWS)
    answer.put(private_bytes() - before)


def memory_bar(root: Path) -> None:
    """Private memory of a reader by the size of the corpus, each in a process of its own."""
    growth = {}
    context = multiprocessing.get_context("fork")
    for shards in (1, 10, 100):
        synthetic_store(root / f"memory-{shards}", shards)
        answer = context.SimpleQueue()
        process = context.Process(target=memory_growth, args=(root / f"memory-{shards}", answer))
        process.start()
        growth[shards] = answer.get() / 2**20
        process.join()
        print(f"{shards}x ({shards * SHARD_TOKENS:,} tokens): {growth[shards]:.2f} MiB of private memory")
    bar("loader-memory-mib-100x-minus-1x", growth[100] - growth[1], MEMORY_GOAL_MIB, below=True)


def main() -> None:
    """Prints all bars."""
    print_machine()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as name:
        memory_bar(Path(name))
        seek_bar(Path(name))
        encode_bar(Path(name))


if __name__ == "__main__":
    main()
