"""Whole builds: what is in the artifact, what repeats, what stops one."""

import gzip
import hashlib
import json
import random

import pyarrow.parquet as pq
import pytest
import yaml

from hatchery_api.conditions import Reason
from hatchery_jobs.corpus import pipeline
from hatchery_jobs.runtime.artifacts import verify
from hatchery_jobs.runtime.errors import DataError, Interrupted, SpecError


def lines(*texts, **more):
    return "".join(json.dumps({"text": text, **more}) + "\n" for text in texts)


def words(seed, count):
    source = random.Random(seed)
    return [f"w{source.randrange(10**6)}" for _ in range(count)]


def rows(outcome, split="train"):
    files = sorted((outcome.folder / "data").glob(f"{split}-*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def texts(outcome, split="train"):
    return [row["text"] for row in rows(outcome, split)]


def content(outcome):
    return {p.relative_to(outcome.folder): p.read_bytes() for p in outcome.folder.rglob("*") if p.is_file()}


def planted(folder, order=1):
    """Ten families of four near-duplicates, an exact and a whitespace duplicate each, and ten texts alone."""
    families = []
    for family in range(10):
        base = words(family, 200 + family)
        near = [" ".join([*base[:-4], *words(100 * family + member + 100, 4)]) for member in range(4)]
        families.append([*near, near[0], near[1].replace(" ", "\n")])
    alone = [" ".join(words(10_000 + number, 150)) for number in range(10)]
    everything = [text for family in families for text in family] + alone
    random.Random(order).shuffle(everything)
    for start in range(0, len(everything), 9):
        (folder / f"{start:03d}.jsonl").write_text(lines(*everything[start : start + 9]))
    return families, alone


def test_planted_duplicates_are_found_counted_and_removed(folder, make):
    families, alone = planted(folder)
    outcome = make(dedup={"near": {}})
    kept = texts(outcome)
    assert set(alone) < set(kept)
    assert [sum(text in family for text in kept) for family in families] == [1] * 10
    assert outcome.result.duplicates.model_dump() == {"exact": 20, "near": 30, "clusters": 10, "largest": 6}
    for family in families:
        survivor = next(text for text in kept if text in family)
        assert len(survivor) == max(map(len, family))


def test_what_is_kept_does_not_depend_on_the_order_of_the_input(folder, make):
    planted(folder, order=1)
    first = make(dedup={"near": {}})
    planted(folder, order=2)
    second = make(dedup={"near": {}})
    assert first.artifact.key != second.artifact.key
    assert sorted(r["id"] + r["cluster"] for r in rows(first)) == sorted(r["id"] + r["cluster"] for r in rows(second))


def test_the_funnel_adds_up(folder, make):
    planted(folder)
    (folder / "z.jsonl").write_text(lines("", "x" * 2000, "short", "x\n" * 1500))
    rules = [{"size": {"minBytes": 10}}, {"lineLength": {"max": 1999, "mean": 1999}}, {"size": {"maxBytes": 2500}}]
    result = make(dedup={"near": {}}, filters={"rules": rules}, split={"validation": 0.3}).result
    steps = [step.step for step in result.funnel]
    assert steps == ["read", "size", "lineLength", "size2", "exactDuplicate", "nearDuplicate", "split"]
    for before, after in zip(result.funnel, result.funnel[1:], strict=False):
        assert before.rows - after.dropped == after.rows
        assert (before.bytes == after.bytes) == (after.dropped == 0)
    assert [step.dropped for step in result.funnel[:4]] == [0, 2, 1, 1]
    assert sum(split.rows for split in result.splits.values()) == result.funnel[-1].rows
    assert sum(split.bytes for split in result.splits.values()) == result.funnel[-1].bytes


def test_rows_say_where_they_come_from(folder, make):
    (folder / "a.jsonl").write_text("\n" + lines("grüße"))
    assert rows(make()) == [
        {
            "text": "grüße",
            "id": hashlib.sha256("grüße".encode()).hexdigest()[:16],
            "source": "a",
            "path": f"{folder}/a.jsonl",
            "row": 2,
            "bytes": 7,
            "cluster": hashlib.sha256("grüße".encode()).hexdigest()[:16],
        }
    ]


def test_datasets_loads_the_folder_with_its_splits(folder, make, tmp_path):
    import datasets

    planted(folder)
    outcome = make(dedup={"near": {}}, split={"validation": 0.3}, output={"shardBytes": 4000})
    loaded = datasets.load_dataset(str(outcome.folder), cache_dir=str(tmp_path / "cache"))
    assert {name: split["text"][:] for name, split in loaded.items()} == {
        name: texts(outcome, name) for name in ("train", "validation")
    }
    assert outcome.result.splits["train"].shards == len(list(outcome.folder.glob("data/train-*"))) > 2


def test_no_cluster_is_on_both_sides(folder, make):
    planted(folder)
    outcome = make(dedup={"near": {}}, split={"validation": 0.5})
    sides = [{row["cluster"] for row in rows(outcome, name)} for name in ("train", "validation")]
    assert all(sides)
    assert not sides[0] & sides[1]


def test_shards_of_no_size_are_refused(folder, make):
    (folder / "a.txt").write_text("x")
    with pytest.raises(SpecError, match=r"spec.output.shardBytes: 500m"):
        make(output={"shardBytes": "500m"})


@pytest.mark.parametrize("shard_bytes", [1, 300, 10**6])
def test_shards_hold_all_rows_in_order_and_about_their_size(folder, make, shard_bytes):
    everything = [" ".join(words(n, 20)) for n in range(40)]
    (folder / "a.jsonl").write_text(lines(*everything))
    outcome = make(output={"shardBytes": shard_bytes})
    files = sorted((outcome.folder / "data").iterdir())
    count = outcome.result.splits["train"].shards
    assert [file.name for file in files] == [f"train-{n:05d}-of-{count:05d}.parquet" for n in range(count)]
    assert texts(outcome) == everything
    sizes = [sum(pq.read_table(file)["bytes"].to_pylist()) for file in files]
    assert max(sizes) < shard_bytes + max(map(len, everything))
    assert count == {1: 40, 10**6: 1}.get(shard_bytes, count)


def test_equal_input_gives_equal_bytes(folder, make):
    planted(folder)
    first, second = (make(root=root, dedup={"near": {}}, split={"validation": 0.2}) for root in ("one", "two"))
    assert first.folder != second.folder
    assert content(first) == content(second)


def test_batches_do_not_change_what_is_built(folder, make, monkeypatch):
    planted(folder)
    first = make(root="one", dedup={"near": {}})
    monkeypatch.setattr(pipeline, "BATCH_ROWS", 3)
    assert rows(make(root="two", dedup={"near": {}})) == rows(first)


def test_an_unchanged_rebuild_is_found_and_a_changed_file_is_not(folder, make, monkeypatch):
    (folder / "a.txt").write_text("one")
    first = make()
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_build", None)
        second = make()
    assert (first.cached, second.cached) == (False, True)
    assert second.artifact == first.artifact
    assert second.result == first.result.model_copy(update={"peak_bytes": None})
    (folder / "a.txt").write_text("two")
    third = make()
    assert not third.cached
    assert third.artifact.key != first.artifact.key


def test_the_artifact_is_complete_and_holds_its_result(folder, make):
    (folder / "a.txt").write_text("one")
    outcome = make()
    assert verify(outcome.folder, outcome.artifact.digest) is not None
    stored = json.loads((outcome.folder / "result.json").read_text())
    assert stored == outcome.result.model_copy(update={"peak_bytes": None}).wire()
    assert outcome.result.peak_bytes > 10**6


def test_the_card_has_the_metadata_of_the_hub_and_the_numbers(folder, make):
    planted(folder)
    card = {"license": "mit", "languages": ["en", "python"], "description": "Test | text."}
    outcome = make(dedup={"near": {}}, split={"validation": 0.3}, card=card)
    _, front, body = (outcome.folder / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["license"] == "mit"
    assert metadata["language"] == ["en", "code"]
    assert "python" in metadata["tags"]
    assert metadata["size_categories"] == ["n<1K"]
    assert metadata["configs"][0]["data_files"] == [
        {"split": "train", "path": "data/train-*"},
        {"split": "validation", "path": "data/validation-*"},
    ]
    assert "Test | text." in body
    assert "| `exactDuplicate` | 20 |" in body
    assert "| `near_duplicate` | 30 |" in body
    assert f"`{folder}/**/*.*`" in body


@pytest.mark.parametrize(("exact", "kept"), [({}, 1), ({"normalize": "none"}, 2), ({"enabled": False}, 3)])
def test_exact_duplicates_are_what_the_spec_says(folder, make, exact, kept):
    (folder / "a.jsonl").write_text(lines("a b", "a b", "a  b"))
    outcome = make(dedup={"exact": exact})
    assert len(rows(outcome)) == kept
    assert outcome.result.duplicates.exact == 3 - kept


def test_an_empty_corpus_says_where_the_documents_went(folder, make):
    (folder / "a.jsonl").write_text(lines("a", "b", "x = y"))
    with pytest.raises(DataError) as raised:
        make(filters={"rules": [{"assignments": {"min": 1}}, {"size": {"minBytes": 99}}]})
    assert raised.value.reason is Reason.EMPTY_CORPUS
    assert "3 read, assignments dropped 2, size dropped 1" in raised.value.message


def test_an_empty_file_of_rows_is_an_empty_corpus(folder, make):
    (folder / "a.jsonl").write_text("\n")
    with pytest.raises(DataError, match="0 read"):
        make()


def test_a_bad_row_ends_the_build_or_is_set_aside(folder, make):
    (folder / "a.jsonl").write_text(lines("x") + "oops\n" + lines("y"))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines("z").encode())[:-5])
    with pytest.raises(DataError, match=r"a.jsonl, row 2, byte 14: invalid JSON") as raised:
        make()
    assert raised.value.reason is Reason.UNREADABLE_INPUT
    outcome = make(files={"onBadRow": "quarantine"})
    aside = [json.loads(line) for line in (outcome.folder / "quarantine.jsonl").read_text().splitlines()]
    assert texts(outcome)[:2] == ["x", "y"]
    assert outcome.result.quarantined == len(aside) == outcome.result.funnel[0].dropped == 2
    assert (aside[0]["path"], aside[0]["row"], aside[0]["byte"]) == (f"{folder}/a.jsonl", 2, 14)
    assert "truncated" in aside[1]["problem"]
    assert "2 unreadable" in (outcome.folder / "README.md").read_text()


def test_sources_are_read_by_name_whatever_their_order_in_the_spec(folder, make):
    for name in "ab":
        (folder / f"{name}.txt").write_text(name)
    sources = [{"name": f"s-{name}", "files": {"urls": [f"{folder}/{name}.txt"]}} for name in "ba"]
    assert [row["source"] for row in rows(make(sources=sources))] == ["s-a", "s-b"]


def test_a_pod_asked_to_end_stops_and_the_next_one_leaves_nothing_of_it(folder, make_context):
    (folder / "a.jsonl").write_text(lines("x", "y"))
    context = make_context()
    context.stop.set()
    with pytest.raises(Interrupted, match="SIGTERM"):
        pipeline.run(context)
    work = context.draft(
        pipeline.CODE_VERSION, {o.name: o.fingerprint for o in pipeline.open_sources(context.job)}
    ).folder
    (work / "data").mkdir(exist_ok=True)
    (work / "data" / "train-00007-of-00009.parquet").write_text("left over")
    (work / "quarantine.jsonl").write_text("left over")
    outcome = pipeline.run(make_context())
    assert outcome.folder.name == work.name.removesuffix(".work")
    assert sorted(str(p) for p in content(outcome)) == [
        "README.md",
        "data/train-00000-of-00001.parquet",
        "manifest.json",
        "result.json",
    ]


def test_progress_tells_files_then_documents(folder, make_context):
    planted(folder)
    context = make_context(dedup={"near": {}})
    seen = []
    object.__setattr__(
        context.progress, "update", lambda done, total, unit, metrics=None: seen.append((done, total, unit))
    )
    pipeline.run(context)
    units = list(dict.fromkeys(unit for _, _, unit in seen))
    assert units == ["files read", "documents signed", "pairs compared", "documents written"]
    assert all(done <= total for done, total, _ in seen)
    assert seen[-1][:2] == (70, 70)
