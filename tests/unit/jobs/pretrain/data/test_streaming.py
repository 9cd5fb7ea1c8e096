"""Rows straight from text, beside those of the store."""

import json
import threading

import numpy as np
import pytest
from tests.support.jobs.hub_client import datasets_served
from tests.support.jobs.texts import documents

from hatchery_api.conditions import Reason
from hatchery_jobs.pretrain import encode
from hatchery_jobs.pretrain.data import corpora as parts
from hatchery_jobs.pretrain.data import streaming as stream
from hatchery_jobs.pretrain.data.corpora import resolve_corpora, training_only
from hatchery_jobs.pretrain.data.loader import open_loader
from hatchery_jobs.pretrain.data.sampler import Interleave
from hatchery_jobs.pretrain.data.streaming import RowStream, ShuffledBlocks
from hatchery_jobs.pretrain.data.text_encoder import EncoderMismatch, FastEncoder
from hatchery_jobs.pretrain.data.token_store import TokenStore
from hatchery_jobs.pretrain.data.types import Tokens
from hatchery_jobs.pretrain.data.vocabulary import load_vocabulary
from hatchery_jobs.runtime.errors import DataError

LENGTH = 32


@pytest.fixture
def many_milestones(monkeypatch):
    """Batches of 7 documents, and a milestone after every second one."""
    monkeypatch.setattr(parts, "BATCH_DOCUMENTS", 7)
    monkeypatch.setattr(stream, "MILESTONE_BATCHES", 2)


@pytest.fixture
def made(bench):
    """Inputs with two corpora, and the store of both."""
    inputs = [bench.corpus(), bench.corpus("corpus-1", "more", train=23, validation=5), bench.tokenizer()]
    changes = {"corpora": [{"corpusRef": {"name": n}} for n in ("texts", "more")]}
    outcome = encode.run(bench.context("encode", inputs, **changes))
    return inputs, changes, TokenStore(outcome.folder, LENGTH)


def text_of(bench, made, folder=None) -> RowStream:
    inputs, changes, _ = made
    context = bench.context("train", inputs, **changes)
    vocabulary = load_vocabulary(context.input("tokenizer"))
    return RowStream(
        [training_only(c) for c in resolve_corpora(context.job, {}, context.scratch)], vocabulary, LENGTH, folder
    )


def numbered(rows: RowStream, first: int, count: int) -> Tokens:
    """Rows by number."""
    parts, found = [], 0
    for some in rows.rows(first):
        parts.append(some)
        found += len(some)
        if found >= count:
            return np.concatenate(parts)[:count]
    raise AssertionError


@pytest.mark.usefixtures("many_milestones")
def test_both_paths_give_the_same_sequences(bench, made):
    store = made[2]
    count = store.sequences("train")
    expected = store.rows("train", range(count)).tokens
    rows = numbered(text_of(bench, made), 0, 2 * count)
    assert (rows[:count] == expected).all()
    assert (rows[count:] == expected).all()  # the second epoch begins at the first token again


@pytest.mark.usefixtures("many_milestones")
@pytest.mark.parametrize("kept", [True, False])
def test_any_row_is_found_again_with_milestones_and_without(bench, made, tmp_path, kept):
    file = tmp_path / "milestones" if kept else None
    whole = numbered(text_of(bench, made, file), 0, 300)
    for first in (1, 17, 150, 299):
        again = text_of(bench, made, file)
        assert (numbered(again, first, 300 - first) == whole[first:]).all()


@pytest.mark.usefixtures("many_milestones")
def test_milestones_save_the_encoding_of_what_comes_before(bench, made, tmp_path, monkeypatch):
    file = tmp_path / "milestones"
    whole = numbered(text_of(bench, made, file), 0, 300)
    file.write_text(file.read_text() + "[1, 2")  # killed while writing
    encoded, original = [], FastEncoder.encode
    monkeypatch.setattr(
        FastEncoder, "encode", lambda self, texts: (encoded.append(len(texts)), original(self, texts))[1]
    )
    assert (numbered(text_of(bench, made, file), 299, 1) == whole[299:]).all()
    assert len(encoded) <= 3
    rows = [json.loads(line)[0] for line in file.read_text().splitlines()[:-1]]
    assert rows == sorted(set(rows))


@pytest.mark.usefixtures("many_milestones")
def test_a_batch_the_fast_encoder_gets_wrong_is_the_same_wherever_reading_begins(bench, made, monkeypatch):
    original = FastEncoder.encode

    def encode_or_not(self, texts):
        if "café" in texts[0]:
            raise EncoderMismatch
        return original(self, texts)

    expected = numbered(text_of(bench, made), 0, 200)
    monkeypatch.setattr(FastEncoder, "encode", encode_or_not)
    assert (numbered(text_of(bench, made), 90, 110) == expected[90:]).all()


@pytest.mark.parametrize("size", [1, 7, 64])
def test_blocks_are_permutations_found_from_anywhere(bench, made, size):
    rows = numbered(text_of(bench, made), 0, 256)
    blocks = ShuffledBlocks(text_of(bench, made), 5, size)
    whole = blocks[np.arange(252)]
    for first in range(0, 252 - size, size):
        block = sorted(map(tuple, whole[first : first + size].tolist()))
        assert block == sorted(map(tuple, rows[first : first + size].tolist()))
    assert (size == 1) == bool((whole == rows[:252]).all())
    assert (blocks[np.arange(100, 110)] == whole[100:110]).all()  # backwards
    blocks.close()
    again = ShuffledBlocks(text_of(bench, made), 5, size)
    assert (again[np.arange(77, 120)] == whole[77:120]).all()
    assert (again[np.arange(200, 210)] == whole[200:210]).all()  # and a leap
    again.close()
    other = ShuffledBlocks(text_of(bench, made), 6, size)
    assert (size == 1) == bool((other[np.arange(252)] == whole).all())
    other.close()


def sources(bench, made, tmp_path, workers, **changes):
    """Sources of several workers whose collective is a barrier."""
    inputs, more, store = made
    data = {"loading": "streaming", **changes.pop("data", {})}
    context = bench.context("train", inputs, **more, **changes, data=data)
    vocabulary = load_vocabulary(context.input("tokenizer"))
    said, barrier = [None], threading.Barrier(workers)

    def broadcast(rows):
        if rows is not None:
            said[0] = rows
        barrier.wait()
        result = said[0]
        barrier.wait()
        return result

    return [streamed(context, store, vocabulary, broadcast, tmp_path if rank == 0 else None) for rank in range(workers)]


def streamed(context, store, vocabulary, broadcast, milestones):
    options = {"broadcast": broadcast, "scratch": context.scratch, "milestones": milestones}
    return open_loader(context.job, store, vocabulary, **options)


def test_all_workers_get_the_rows_the_lead_reads(bench, made, tmp_path):
    alone = sources(bench, made, tmp_path, 1)[0]
    alone.begin(40, 12)
    expected = alone.training(40, 12).tokens
    both = sources(bench, made, tmp_path, 2)
    thread = threading.Thread(target=both[1].begin, args=(40, 12))
    thread.start()
    both[0].begin(40, 12)
    thread.join()
    for source in both:
        assert (source.training(44, 8).tokens == expected[4:]).all()
        assert source.validation_rows == made[2].sequences("validation")
        with pytest.raises(ValueError, match="positions 39 to 40"):
            source.training(39, 2)
    for source in (alone, *both):
        source.close()


def test_rows_tell_documents_apart_when_asked(bench, made, tmp_path):
    source = sources(bench, made, tmp_path, 1, data={"documentMask": True, "shuffle": {"bufferRows": 1}})[0]
    source.begin(0, 10)
    assert (source.training(0, 10).positions == made[2].rows("train", range(10), positions=True).positions).all()
    source.close()


def test_corpora_with_weights_take_turns(bench, made, tmp_path):
    inputs, changes, store = made
    weighted = {"corpora": [{**c, "weight": w} for c, w in zip(changes["corpora"], (1, 3), strict=True)]}
    source = sources(bench, (inputs, weighted, store), tmp_path, 1, data={"shuffle": {"bufferRows": 1, "seed": 4}})[0]
    source.begin(500, 60)
    found = source.training(500, 60).tokens
    source.close()
    turns, visits = Interleave(4, [1, 3])(np.arange(500, 560))
    counts = store.counts("train")
    numbers = [visit % counts[corpus] + corpus * counts[0] for corpus, visit in zip(turns, visits, strict=True)]
    assert (found == store.rows("train", numbers).tokens).all()


def test_text_that_fills_no_row_is_said(bench, made):
    inputs, changes, _ = made
    context = bench.context("train", inputs, **changes)
    vocabulary = load_vocabulary(context.input("tokenizer"))
    rows = RowStream([training_only(c) for c in resolve_corpora(context.job, {}, context.scratch)], vocabulary, 10**6)
    with pytest.raises(DataError, match="texts, more: too little text for one sequence of 1000001 tokens"):
        list(rows.rows(0))
    blocks = ShuffledBlocks(rows, 1, 4)
    for _ in range(2):
        with pytest.raises(DataError, match="too little text for one sequence"):  # also from the thread that reads
            blocks[np.arange(1)]
    blocks.close()


class TestSources:
    """Files that no CorpusBuild has read."""

    @pytest.fixture
    def folder(self, tmp_path):
        place = tmp_path / "in"
        place.mkdir()
        for number in range(3):
            lines = (json.dumps({"text": text}) for text in documents(40, number))
            (place / f"{number}.jsonl").write_text("\n".join(lines))
        for number, text in enumerate(documents(30, 7)):
            (place / f"{number}.py").write_text(text)
        return place

    def changes(self, folder, **data):
        return {
            "corpora": [{"files": {"urls": [f"{folder}/*"]}}],
            "data": {"validationShare": 0.2, "shuffle": {"bufferRows": 1}, **data},
        }

    def test_a_hash_of_the_text_decides_the_split(self, bench, folder):
        outcome = encode.run(bench.context("encode", [bench.tokenizer()], **self.changes(folder)))
        store = TokenStore(outcome.folder, LENGTH)
        train, validation = store.index.splits["train"], store.index.splits["validation"]
        texts = [*(t for n in range(3) for t in documents(40, n)), *documents(30, 7)]
        assert train.documents + validation.documents == len(texts)
        assert 10 <= validation.documents <= 60
        assert train.text_bytes + validation.text_bytes == sum(len(t.encode()) for t in texts)
        vocabulary = load_vocabulary(bench.root / "words" / "key")
        decoded = {
            split: [
                vocabulary.tokenizer.decode(d[:-1].tolist())
                for d in store.documents(split, range(store.index.splits[split].documents))
            ]
            for split in ("train", "validation")
        }
        assert sorted(decoded["train"] + decoded["validation"]) == sorted(texts)
        assert not set(decoded["train"]) & set(decoded["validation"])

    def test_streaming_learns_the_rows_of_the_store_and_measures_the_same(self, bench, folder):
        inputs = [bench.tokenizer()]
        stored = TokenStore(encode.run(bench.context("encode", inputs, **self.changes(folder))).folder, LENGTH)
        changes = self.changes(folder, loading="streaming")
        outcome = encode.run(bench.context("encode", inputs, **changes))
        store = TokenStore(outcome.folder, LENGTH)
        assert store.index.streamed
        assert store.index.splits["train"].tokens == 0
        rows = stored.sequences("validation")
        assert store.sequences("validation") == rows
        assert (store.rows("validation", range(rows)).tokens == stored.rows("validation", range(rows)).tokens).all()
        context = bench.context("train", inputs, **changes)
        vocabulary = load_vocabulary(context.input("tokenizer"))
        source = streamed(context, store, vocabulary, lambda rows: rows, bench.root)
        count = stored.sequences("train")
        source.begin(0, count)
        assert (source.training(0, count).tokens == stored.rows("train", range(count)).tokens).all()
        source.close()

    def test_files_that_changed_since_are_named(self, bench, folder):
        inputs, changes = [bench.tokenizer()], self.changes(folder, loading="streaming")
        outcome = encode.run(bench.context("encode", inputs, **changes))
        (folder / "1.jsonl").write_text('{"text": "other"}')
        context = bench.context("train", inputs, **changes)
        vocabulary = load_vocabulary(context.input("tokenizer"))
        with pytest.raises(DataError, match=r"spec.corpora\[0\]: .*has changed since the run began"):
            streamed(context, TokenStore(outcome.folder, LENGTH), vocabulary, lambda rows: rows, bench.root)

    def test_a_changed_file_is_encoded_and_the_others_are_not(self, bench, folder, monkeypatch):
        inputs, changes = [bench.tokenizer()], self.changes(folder)
        first = encode.run(bench.context("encode", inputs, **changes))
        (folder / "1.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in documents(25, 77)))
        counts, original = [], FastEncoder.encode
        monkeypatch.setattr(
            FastEncoder, "encode", lambda self, texts: (counts.append(len(texts)), original(self, texts))[1]
        )
        second = encode.run(bench.context("encode", inputs, **changes))
        assert second.artifact.key != first.artifact.key
        assert sum(counts) == 25

    def test_a_bad_row_is_named_or_set_aside(self, bench, folder):
        (folder / "1.jsonl").write_text('{"text": "good"}\nbad')
        inputs = [bench.tokenizer()]
        with pytest.raises(DataError, match=r"spec.corpora\[0\]: .*1.jsonl, row 2.*invalid JSON") as caught:
            encode.run(bench.context("encode", inputs, **self.changes(folder)))
        assert caught.value.reason == Reason.UNREADABLE_INPUT
        changes = self.changes(folder)
        changes["corpora"][0]["files"]["onBadRow"] = "quarantine"
        outcome = encode.run(bench.context("encode", inputs, **changes))
        index = TokenStore(outcome.folder, LENGTH).index
        assert sum(split.documents for split in index.splits.values()) == 40 + 1 + 40 + 30

    def test_what_cannot_be_found_is_named_by_its_field(self, bench, tmp_path):
        with pytest.raises(DataError, match=r"spec.corpora\[0\].files.urls\[0\]: .* matches no file"):
            encode.run(bench.context("encode", [bench.tokenizer()], **self.changes(tmp_path / "nowhere")))


class TestDatasets:
    """Datasets of the Hub."""

    @pytest.fixture
    def server(self, tmp_path, monkeypatch):
        with datasets_served(tmp_path, monkeypatch) as running:
            yield running

    def push(self, server, texts):
        from huggingface_hub import HfApi

        api = HfApi(endpoint=server.url, token="writer")
        api.create_repo("lab/texts", repo_type="dataset", private=True, exist_ok=True)
        data = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        return api.upload_file(
            path_or_fileobj=data.encode(), path_in_repo="train.jsonl", repo_id="lab/texts", repo_type="dataset"
        ).oid

    @pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning", "ignore:unclosed:ResourceWarning")
    def test_the_commit_of_the_beginning_is_streamed_to_the_end(self, bench, server):
        first = self.push(server, documents(80, 3))
        hub = {"dataset": "lab/texts", "endpoint": server.url}
        data = {"validationShare": 0.2, "shuffle": {"bufferRows": 1}}
        inputs = [bench.tokenizer()]
        stored = encode.run(bench.context("encode", inputs, corpora=[{"hub": hub}], data=data))
        changes = {"corpora": [{"hub": hub}], "data": {**data, "loading": "streaming"}}
        outcome = encode.run(bench.context("encode", inputs, **changes))
        self.push(server, documents(80, 4))  # the branch moves on while the run trains
        store = TokenStore(outcome.folder, LENGTH)
        assert store.index.corpora[0].revision == first
        context = bench.context("train", inputs, **changes)
        vocabulary = load_vocabulary(context.input("tokenizer"))
        source = streamed(context, store, vocabulary, lambda rows: rows, bench.root)
        expected = TokenStore(stored.folder, LENGTH)
        count = expected.sequences("train")
        source.begin(0, count)
        assert (source.training(0, count).tokens == expected.rows("train", range(count)).tokens).all()
        source.close()
