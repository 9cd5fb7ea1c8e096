"""The encode stage."""

import errno
import sys
import types
from dataclasses import replace

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.jobs.texts import documents
from tokenizers import Tokenizer

from hatchery_api.conditions import Reason
from hatchery_api.contract import ExitCode, Output
from hatchery_jobs.pretrain import encode
from hatchery_jobs.pretrain.data.encode_worker import EncodePlan, EncodeWorker
from hatchery_jobs.pretrain.data.text_encoder import FastEncoder, FileEncoder
from hatchery_jobs.pretrain.data.token_store import INDEX, ShardWriter, TokenIndex, TokenStore
from hatchery_jobs.pretrain.data.vocabulary import load_vocabulary
from hatchery_jobs.runtime.artifacts import verify
from hatchery_jobs.runtime.errors import DataError, Interrupted, RetryableError, SpecError


def read(folder, split):
    """Tokens of all corpora, one after the other."""
    index = TokenIndex.model_validate_json((folder / INDEX).read_bytes())
    shards = [np.fromfile(folder / f"{s.name}.tokens", index.dtype) for s in index.splits[split].shards]
    return np.concatenate(shards), index


def test_documents_come_back_from_the_shards_in_order(bench):
    inputs = [bench.corpus(), bench.corpus("corpus-1", "more", train=7, validation=3), bench.tokenizer()]
    corpora = [{"corpusRef": {"name": n}} for n in ("texts", "more")]
    outcome = encode.run(bench.context("encode", inputs, corpora=corpora))
    tokenizer = Tokenizer.from_file(str(bench.root / "words" / "key" / "tokenizer.json"))
    for split in ("train", "validation"):
        tokens, index = read(outcome.folder, split)
        files = [bench.root / n / "key" / "data" / f"{split}-00000-of-00001.parquet" for n in ("texts", "more")]
        texts = [t for f in files for t in pq.read_table(f)["text"].to_pylist()]
        ends = np.flatnonzero(tokens == index.eos_id)
        starts = [0, *(ends[:-1] + 1)]
        decoded = [tokenizer.decode(tokens[a:b].tolist()) for a, b in zip(starts, ends, strict=True)]
        assert decoded == texts
        assert ends[-1] == len(tokens) - 1  # nothing after the last document's end
        part = index.splits[split]
        assert (part.documents, part.tokens) == (len(texts), len(tokens))
        assert part.text_bytes == sum(len(t.encode()) for t in texts)
    assert [c.name for c in index.corpora] == ["texts", "more"]
    assert [c.digest for c in index.corpora] == [i.digest for i in inputs[:2]]
    assert outcome.result.parameters > 0


def test_documents_are_read_by_number(bench):
    outcome = encode.run(bench.context("encode", [bench.corpus(), bench.tokenizer()]))
    tokenizer = Tokenizer.from_file(str(bench.root / "words" / "key" / "tokenizer.json"))
    texts = pq.read_table(bench.root / "texts" / "key" / "data" / "train-00000-of-00001.parquet")["text"].to_pylist()
    found = TokenStore(outcome.folder, 32).documents("train", [17, 3])
    assert [tokenizer.decode(d[:-1].tolist()) for d in found] == [texts[17], texts[3]]


def test_equal_inputs_give_equal_bytes_and_are_encoded_once(bench, monkeypatch):
    inputs = [bench.corpus(), bench.tokenizer()]
    first = encode.run(bench.context("encode", inputs, "a"))
    calls = count_calls(monkeypatch)
    second = encode.run(bench.context("encode", inputs, "b"))
    again = encode.run(bench.context("encode", inputs, "a"))
    assert first.artifact.digest == second.artifact.digest
    assert (first.cached, second.cached, again.cached) == (False, False, True)
    assert not calls


def test_what_does_not_change_the_tokens_does_not_change_the_artifact(bench, monkeypatch):
    inputs = [bench.corpus(), bench.tokenizer()]
    first = encode.run(bench.context("encode", inputs))
    changes = {
        "schedule": {"steps": 99},
        "model": {"size": "small"},
        "data": {"sequenceLength": 16, "documentMask": True, "shuffle": {"seed": 9}},
        "encode": {"parallelism": 5},
    }
    again = encode.run(bench.context("encode", inputs, **changes))
    assert again.cached
    assert again.artifact == first.artifact
    packed = encode.run(bench.context("encode", inputs, data={"packing": "bestFit"}))
    assert packed.artifact.key != first.artifact.key


def test_a_corpus_more_leaves_the_others_as_they_are(bench, monkeypatch):
    inputs = [bench.corpus(), bench.tokenizer()]
    encode.run(bench.context("encode", inputs))
    more = bench.corpus("corpus-1", "more", train=7, validation=3)
    texts = count_calls(monkeypatch)
    corpora = [{"corpusRef": {"name": n}} for n in ("texts", "more")]
    encode.run(bench.context("encode", [*inputs, more], corpora=corpora))
    # both corpora begin with the same documents, but their files are others
    assert sum(texts) == 10


def count_calls(monkeypatch):
    """Counts of documents given to the encoder from now on."""
    counts, original = [], FileEncoder.encode

    def counting(self, texts):
        counts.append(len(texts))
        return original(self, texts)

    monkeypatch.setattr(FileEncoder, "encode", counting)
    return counts


def many_files(bench, files=5):
    def fill(folder):
        (folder / "data").mkdir()
        for number in range(files):
            table = pa.table({"text": documents(20, number)})
            pq.write_table(table, folder / "data" / f"train-{number:05d}-of-{files:05d}.parquet")
        pq.write_table(pa.table({"text": documents(10, 99)}), folder / "data" / "validation-00000-of-00001.parquet")

    return [bench.artifact("corpus", "texts", fill), bench.tokenizer()]


def test_pods_share_the_files_and_make_what_one_would(bench, monkeypatch):
    inputs = many_files(bench)
    alone = encode.run(bench.context("encode", inputs, "elsewhere/alone"))
    monkeypatch.setenv("HATCHERY_NODES", "3")
    workers = []
    for pod in range(3):
        monkeypatch.setenv("HATCHERY_NODE_INDEX", str(pod))
        context = bench.context("encode", inputs)
        workers.append(EncodeWorker(context, EncodePlan.of(context, reads_pairs=False), pod, 3))
    made = []
    for pod, worker in enumerate(workers):
        monkeypatch.setattr(worker, "_complete", lambda key, *, own, pod=pod: made.append((pod, key)) if own else None)
        worker.encode()
    keys = [key for _, key in made]
    assert sorted(keys) == sorted(workers[0]._parts)
    assert [pod for pod, _ in made] == [0, 0, 1, 1, 2, 2]
    monkeypatch.undo()
    outcomes = []
    for pod in (1, 0, 2):
        monkeypatch.setenv("HATCHERY_NODES", "3")
        monkeypatch.setenv("HATCHERY_NODE_INDEX", str(pod))
        outcomes.append(encode.run(bench.context("encode", inputs)))
    assert [o.cached for o in outcomes] == [False, True, True]
    assert {o.artifact.digest for o in outcomes} == {alone.artifact.digest}


def test_pods_that_finish_together_end_with_one_artifact(bench, monkeypatch):
    inputs = many_files(bench)
    original = EncodeWorker.assemble

    def assemble(self, folder):
        monkeypatch.setattr(EncodeWorker, "assemble", original)
        monkeypatch.setenv("HATCHERY_NODE_INDEX", "1")
        first.append(encode.run(bench.context("encode", inputs)))  # another pod is faster
        monkeypatch.setenv("HATCHERY_NODE_INDEX", "0")
        return original(self, folder)

    first = []
    monkeypatch.setattr(EncodeWorker, "assemble", assemble)
    monkeypatch.setenv("HATCHERY_NODES", "2")
    second = encode.run(bench.context("encode", inputs))
    assert second.artifact == first[0].artifact
    assert verify(second.folder).digest == second.artifact.digest
    assert [p.name for p in second.folder.parent.iterdir()] == [second.artifact.key]  # nobody's work is left


def test_a_killed_attempt_goes_on_after_its_finished_files(bench, monkeypatch):
    inputs = many_files(bench)
    clean = encode.run(bench.context("encode", inputs, "elsewhere/clean"))
    original = FileEncoder.encode
    left = [3]

    def dying(self, texts):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return original(self, texts)

    monkeypatch.setattr(FileEncoder, "encode", dying)
    with pytest.raises(KeyboardInterrupt):
        encode.run(bench.context("encode", inputs))
    calls = count_calls(monkeypatch)
    monkeypatch.setattr(FileEncoder, "encode", lambda self, texts: (calls.append(len(texts)), original(self, texts))[1])
    assert encode.run(bench.context("encode", inputs)).artifact.digest == clean.artifact.digest
    assert len(calls) == 3  # of six files


@pytest.mark.parametrize("damage", ["cut", "change", "forget"])
def test_a_damaged_piece_is_made_again(bench, damage):
    inputs = many_files(bench)
    clean = encode.run(bench.context("encode", inputs, "elsewhere/clean"))
    context = bench.context("encode", inputs)
    EncodeWorker(context, EncodePlan.of(context, reads_pairs=False)).encode()
    folder = next(p for p in (bench.root / "_pieces").iterdir() if (p / "train.tokens").exists())
    file = folder / ("piece.json" if damage == "forget" else "train.tokens")
    content = file.read_bytes()
    file.unlink()
    if damage != "forget":
        file.write_bytes(content[:-2] if damage == "cut" else bytes([content[0] ^ 1]) + content[1:])
    assert encode.run(bench.context("encode", inputs)).artifact.digest == clean.artifact.digest


def test_best_fit_is_packed_once_and_for_all(bench):
    inputs = many_files(bench)
    outcome = encode.run(bench.context("encode", inputs, data={"packing": "bestFit", "sequenceLength": 300}))
    store = TokenStore(outcome.folder, 300)
    train = store.index.splits["train"]
    assert train.rows == store.sequences("train")
    assert train.padding == pytest.approx(1 - train.tokens / (train.rows * 300), abs=1e-6)
    rows = store.rows("train", range(train.rows))
    assert rows.is_target.sum() == train.tokens


def test_pairs_are_stored_once_for_both_directions(bench, monkeypatch):
    module = types.ModuleType("pairs")
    module.mine_pairs = lambda text: [(f"about {text[:20]}", f"code {text[20:50]}")] * (2 if "café" in text else 0)
    monkeypatch.setitem(sys.modules, "hatchery_jobs.pretrain.data.pairs", module)
    inputs = [bench.corpus(), bench.tokenizer()]
    outcomes = [
        encode.run(bench.context("encode", inputs, objective={"type": "seq2seq", "seq2seq": {"task": task}}))
        for task in ("commentToCode", "codeToComment")
    ]
    assert [o.cached for o in outcomes] == [False, True]
    texts = pq.read_table(bench.root / "texts" / "key" / "data" / "train-00000-of-00001.parquet")["text"].to_pylist()
    expected = [pair for text in texts for pair in module.mine_pairs(text)]
    store = TokenStore(outcomes[0].folder, 32)
    assert store.counts("train") == [len(expected)]
    tokenizer = Tokenizer.from_file(str(bench.root / "words" / "key" / "tokenizer.json"))
    found = store.pairs("train", range(len(expected)))
    assert [tuple(tokenizer.decode(x.tolist()) for x in pair) for pair in found] == expected


def test_a_corpus_without_pairs_is_too_little_text(bench, monkeypatch):
    module = types.ModuleType("pairs")
    module.mine_pairs = lambda _: []
    monkeypatch.setitem(sys.modules, "hatchery_jobs.pretrain.data.pairs", module)
    changes = {"objective": {"type": "seq2seq", "seq2seq": {"task": "commentToCode"}}}
    with pytest.raises(DataError, match="corpus texts: the train split has no pair of a comment and its code"):
        encode.run(bench.context("encode", [bench.corpus(), bench.tokenizer()], **changes))


def test_too_little_text_says_how_much_there_is(bench):
    inputs = [bench.corpus(train=60, validation=1), bench.tokenizer()]
    with pytest.raises(DataError, match=r"validation split has \d+ tokens in 1 documents; one sequence takes 501") as e:
        encode.run(bench.context("encode", inputs, data={"sequenceLength": 500}))
    assert e.value.reason == Reason.NOT_ENOUGH_TEXT
    assert e.value.exit_code == ExitCode.DATA_ERROR


def test_an_empty_split_is_too_little_text(bench):
    with pytest.raises(DataError, match="validation split has 0 tokens in 0 documents"):
        encode.run(bench.context("encode", [bench.corpus(validation=0), bench.tokenizer()]))


def test_a_tokenizer_without_end_of_text_is_refused(bench):
    with pytest.raises(DataError, match="eos_token is None") as e:
        encode.run(bench.context("encode", [bench.corpus(), bench.tokenizer(eos=None)]))
    assert e.value.reason == Reason.VOCABULARY_MISMATCH


def test_ids_beyond_the_vocabulary_are_refused(bench):
    record = bench.tokenizer()
    folder = bench.root / "words" / "key"
    text = (folder / "tokenizer.json").read_text().replace('"id": 0,', '"id": 70000,', 1)
    text = text.replace('"<|endoftext|>": 0,', '"<|endoftext|>": 70000,', 1)
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(DataError, match="token id 70000 is not below the vocabulary size") as e:
        load_vocabulary(folder)
    assert e.value.reason == Reason.VOCABULARY_MISMATCH
    assert record.role == "tokenizer"


def test_a_broken_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as a fast tokenizer"):
        load_vocabulary(tmp_path)


def test_a_corpus_without_text_column_is_named(bench):
    def fill(folder):
        (folder / "data").mkdir()
        for split in ("train", "validation"):
            pq.write_table(pa.table({"content": ["x"]}), folder / "data" / f"{split}-00000-of-00001.parquet")

    inputs = [bench.artifact("corpus", "odd", fill), bench.tokenizer()]
    with pytest.raises(DataError, match=r"train-00000-of-00001.parquet: not a parquet file with a column `text`") as e:
        encode.run(bench.context("encode", inputs))
    assert e.value.reason == Reason.UNREADABLE_INPUT


def test_an_impossible_model_is_refused_before_encoding(bench):
    inputs = [bench.corpus(), bench.tokenizer()]
    with pytest.raises(SpecError, match="5 heads do not divide a width of 128"):
        encode.run(bench.context("encode", inputs, model={"overrides": {"heads": 5}}))


def test_it_ends_when_asked_and_leaves_no_artifact(bench):
    context = bench.context("encode", [bench.corpus(), bench.tokenizer()])
    context.stop.set()
    with pytest.raises(Interrupted):
        encode.run(context)
    assert not list((bench.root / "runs").glob("*/manifest.json"))
    assert not list((bench.root / "_pieces").glob("*"))


def test_a_file_the_fast_encoder_gets_wrong_is_encoded_by_the_tokenizer(bench, monkeypatch):
    inputs = many_files(bench)
    clean = encode.run(bench.context("encode", inputs, "elsewhere/clean"))
    original = FastEncoder.encode
    calls = []

    def wrong(self, texts):
        calls.append(len(texts))
        return [ids[:-1] if len(calls) == 2 else ids for ids in original(self, texts)]

    monkeypatch.setattr(FastEncoder, "encode", wrong)
    assert encode.run(bench.context("encode", inputs)).artifact.digest == clean.artifact.digest
    assert len(calls) == 6


def test_a_full_disk_says_where_and_leaves_nothing_behind(bench, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardWriter, "write", full)
    with pytest.raises(
        RetryableError, match=r"_pieces/.*: No space left on device; check the volume's free space"
    ) as e:
        encode.run(bench.context("encode", many_files(bench)))
    assert e.value.reason == Reason.STORAGE_ERROR
    assert not list((bench.root / "_pieces").iterdir())


def test_progress_counts_all_documents(bench):
    context = bench.context("encode", many_files(bench))
    said = []
    context.progress.send = said.append
    context.progress.update = lambda done, total, unit: said.append((done, total, unit))
    encode.run(context)
    assert said == sorted(said)
    assert said[-1] == (110, 110, "documents")


def test_objects_of_a_store_are_put_and_found_again(bench):
    """The same in an object store, where nothing is renamed and a marker comes last."""
    inputs = many_files(bench)
    local = encode.run(bench.context("encode", inputs, "elsewhere/local"))
    context = bench.context("encode", inputs)
    job = context.job.model_copy(update={"output": Output(root="memory://bucket/runs/a")})
    remote = encode.run(replace(context, job=job))
    assert remote.artifact.digest == local.artifact.digest
    assert remote.artifact.uri == f"memory://bucket/runs/a/{remote.artifact.key}"
    other = job.model_copy(update={"output": Output(root="memory://bucket/runs/b")})
    scratch = bench.root / "fresh"
    scratch.mkdir()
    store = fsspec.filesystem("memory")
    marker = next(path for path in store.find("/bucket/runs/_pieces") if path.endswith("piece.json"))
    data = next(path for path in store.find(marker.rpartition("/")[0]) if path.endswith(".tokens"))
    store.pipe_file(
        data, b"\0" + store.cat_file(data)[1:] if store.cat_file(data)[0] else b"\1" + store.cat_file(data)[1:]
    )
    again = encode.run(replace(context, job=other, scratch=scratch))  # made again, for it is damaged
    assert again.artifact.digest == local.artifact.digest


@pytest.mark.parametrize("own", [None, {"name": "reader", "key": "token"}])
def test_a_run_that_may_not_push_is_refused_before_anything_is_encoded(bench, monkeypatch, own):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    corpora = [{"corpusRef": {"name": "texts"}}, {"hub": {"dataset": "lab/other", "tokenSecret": own}}]
    hub = {"repo": "lab/model", "tokenSecret": {"name": "writer", "key": "token"}}
    context = bench.context("encode", [bench.corpus(), bench.tokenizer()], corpora=corpora[: 1 + bool(own)], hub=hub)
    # where the corpora have a token of their own, the pod has not the one to push with
    refused = pytest.raises(SpecError if own is None else RetryableError)
    with refused as caught:
        encode.run(context)
    assert ("no token" in caught.value.message) == (own is None)
    assert not (bench.root / "_pieces").exists()
