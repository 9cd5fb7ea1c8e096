"""A corpus artifact is read alike by every stage: all files of a split, in order."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hatchery_api.conditions import Reason
from hatchery_jobs.readers import corpus_artifact
from hatchery_jobs.readers.corpus_artifact import CorpusSplit, open_split, read_batches, split_files
from hatchery_jobs.runtime.errors import DataError


def test_a_split_is_all_its_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for i, texts in enumerate((["a", "b"], ["c"])):
        pq.write_table(pa.table({"text": texts}), tmp_path / f"data/validation-0000{i}-of-00002.parquet")
    found = open_split(tmp_path, "validation")
    assert found.documents == 3
    assert [text for batch in found.batches() for text in batch] == ["a", "b", "c"]
    with pytest.raises(DataError, match="no data/train-") as caught:
        open_split(tmp_path, "train")
    assert caught.value.reason == Reason.EMPTY_CORPUS


def test_batches_end_when_they_are_large_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"text": ["aaa", "bb", "", "c", "dddd"]}), tmp_path / "data/train-00000-of-00001.parquet")
    monkeypatch.setattr(corpus_artifact, "BATCH_CHARS", 4)
    assert list(open_split(tmp_path, "train").batches()) == [["aaa", "bb"], ["", "c", "dddd"]]


def test_every_way_of_reading_gives_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for i, texts in enumerate((["a", None, "b"], ["", "c"] * 40)):
        table = pa.table({"text": pa.array(texts, pa.string())})
        pq.write_table(table, tmp_path / f"data/train-0000{i}-of-00002.parquet", row_group_size=7)
    files = split_files(tmp_path, "train")
    split = CorpusSplit(files)
    rows = list(split.texts())
    assert rows[:3] == [(0, 0, "a"), (0, 2, "b"), (1, 0, "")]
    assert [text for batch in split.batches() for text in batch] == [text for _, _, text in rows]
    for size in (1, 64, 512):
        assert [text for file in files for batch in read_batches(file, size) for text in batch] == [r[2] for r in rows]


@pytest.mark.parametrize("damage", ["bytes", "column"])
def test_a_file_that_is_no_part_of_a_corpus_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "train-00000-of-00001.parquet"
    path.write_bytes(b"PAR1 but nothing else")
    if damage == "column":
        pq.write_table(pa.table({"body": ["x"]}), path)
    with pytest.raises(DataError, match=r"train-00000-of-00001.parquet: .*; rebuild the corpus mine") as caught:
        list(read_batches(path, corpus="mine"))
    assert caught.value.reason == Reason.UNREADABLE_INPUT
