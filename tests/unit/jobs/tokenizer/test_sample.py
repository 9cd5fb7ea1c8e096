import hashlib
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hatchery_api.conditions import Reason
from hatchery_jobs.readers import corpus_artifact
from hatchery_jobs.readers.corpus_artifact import CorpusSplit, open_split
from hatchery_jobs.runtime.errors import DataError
from hatchery_jobs.tokenizer import sample
from hatchery_jobs.tokenizer.sample import sample_split

TEXTS = [f"document {i} " + "x" * (i % 13) for i in range(200)]


def write(folder: Path, *files: list[str]) -> CorpusSplit:
    folder.mkdir()
    paths = [folder / f"{i}.parquet" for i in range(len(files))]
    for path, texts in zip(paths, files, strict=True):
        pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path, row_group_size=11)
    return CorpusSplit(tuple(paths))


def texts(chosen: sample.DocumentSample) -> list[str]:
    return [document.text for batch in chosen.batches() for document in batch]


def test_choice_is_the_first_by_hash(tmp_path: Path) -> None:
    split = write(tmp_path / "a", TEXTS[:150], TEXTS[150:])

    def rank(text: str) -> bytes:
        return hashlib.blake2b(text.encode(), digest_size=8, key=(7).to_bytes(8, "big")).digest()

    assert sorted(texts(sample_split(split, 20, 7))) == sorted(sorted(TEXTS, key=rank)[:20])


def test_choice_ignores_the_order_of_files_and_rows(tmp_path: Path) -> None:
    shuffled = random.Random(3).sample(TEXTS, len(TEXTS))
    one = sample_split(write(tmp_path / "a", TEXTS), 30, 1)
    other = sample_split(write(tmp_path / "b", shuffled[:5], shuffled[5:90], shuffled[90:]), 30, 1)
    assert set(texts(one)) == set(texts(other))
    assert len(other) == 30


def test_another_seed_chooses_others(tmp_path: Path) -> None:
    split = write(tmp_path / "a", TEXTS)
    assert set(texts(sample_split(split, 30, 1))) != set(texts(sample_split(split, 30, 2)))


def test_all_documents_when_there_are_fewer_and_none_without_text(tmp_path: Path) -> None:
    split = write(tmp_path / "a", ["", *TEXTS, ""])
    assert texts(sample_split(split, 10_000, 1)) == TEXTS


def test_documents_are_cut_and_say_where_they_are(tmp_path: Path) -> None:
    split = write(tmp_path / "a", ["short"], ["", "a longer document"])
    found = [document for batch in sample_split(split, 9, 1, 5).batches() for document in batch]
    assert found == [("0.parquet row 0", "short"), ("1.parquet row 1", "a lon")]


def test_the_sample_ends_before_the_library_would_overflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "MAX_CHARS", 50)
    chosen = sample_split(write(tmp_path / "a", ["a" * 20 + str(i) for i in range(9)]), 9, 1, 100)
    assert len(chosen) == 2


def test_a_split_without_files_or_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data/validation-") as missing:
        open_split(tmp_path, "validation")
    with pytest.raises(DataError, match="hold no text") as empty:
        sample_split(write(tmp_path / "a", ["", ""]), 5, 1)
    assert missing.value.reason == empty.value.reason == Reason.EMPTY_CORPUS


def test_batches_end_when_they_are_large_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_artifact, "BATCH_CHARS", 25)
    chosen = sample_split(write(tmp_path / "a", ["a" * 10] * 4, ["b" * 40, "c"]), 9, 1)
    assert [[len(document.text) for document in batch] for batch in chosen.batches()] == [[10, 10, 10], [10, 40], [1]]
