"""The sources of Python's standard library as the inputs of a PretrainRun: a corpus and a tokenizer."""

import json
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, pre_tokenizers, trainers

from hatchery_api.status import InputRecord
from hatchery_jobs.runtime import open_draft

EOS = "<|endoftext|>"
LEFT_OUT = {"site-packages", "test", "tests", "idlelib"}
VALIDATION_EVERY = 20
"""Every so many files, one is measured and not learnt."""


def sources(root: Path | None = None) -> list[str]:
    """Texts of the files under a folder, tests and what does not belong to the library left out, in order of path."""
    root = root or Path(sysconfig.get_path("stdlib"))
    paths = sorted(path for path in root.rglob("*.py") if not LEFT_OUT & set(path.relative_to(root).parts))
    return [path.read_text(errors="replace") for path in paths]


def split(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts to learn from, and every `VALIDATION_EVERY`-th to measure."""
    train = [text for number, text in enumerate(texts) if number % VALIDATION_EVERY]
    return train, list(texts[::VALIDATION_EVERY])


def learn_merges(tokenizer: Tokenizer, texts: Sequence[str], vocabulary: int) -> None:
    """Trains a byte-level tokenizer."""
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)


def inputs(root: Path, train: Sequence[str], validation: Sequence[str], tokenizer: Tokenizer) -> list[InputRecord]:
    """Corpus and tokenizer as the stages before leave them."""

    def corpus(folder: Path) -> None:
        (folder / "data").mkdir()
        for name, texts in (("train", train), ("validation", validation)):
            pq.write_table(pa.table({"text": list(texts)}), folder / "data" / f"{name}-00000-of-00001.parquet")

    def words(folder: Path) -> None:
        tokenizer.save(str(folder / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))

    return [_artifact(root, "corpus", corpus), _artifact(root, "tokenizer", words)]


def _artifact(root: Path, role: str, fill: Callable[[Path], None]) -> InputRecord:
    draft = open_draft(str(root / role), "key", {}, root)
    fill(draft.folder)
    artifact, _ = draft.commit()
    return InputRecord(role=role, kind="Any", name=role, uri=artifact.uri, digest=artifact.digest)
