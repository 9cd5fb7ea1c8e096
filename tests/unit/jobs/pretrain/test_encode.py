"""The encode stage."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from hatchery_api.conditions import Reason
from hatchery_api.contract import ExitCode
from hatchery_jobs.errors import DataError, Interrupted, SpecError
from hatchery_jobs.pretrain import encode
from hatchery_jobs.pretrain.data import INDEX, TokenIndex
from hatchery_jobs.pretrain.vocabulary import load_vocabulary


def read(folder, split):
    index = TokenIndex.model_validate_json((folder / INDEX).read_bytes())
    return np.concatenate([np.fromfile(folder / s.file, index.dtype) for s in index.splits[split].shards]), index


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
    assert outcome.result.parameters > 0


def test_text_that_spells_out_the_end_token_does_not_end_a_document(bench):
    bench.tokenizer()
    vocabulary = load_vocabulary(bench.root / "words" / "key")
    tokens = encode.encode_documents(vocabulary, ["a <|endoftext|> b"])
    assert (tokens == vocabulary.eos_id).sum() == 1
    assert tokens[-1] == vocabulary.eos_id
    assert vocabulary.tokenizer.decode(tokens[:-1].tolist()) == "a <|endoftext|> b"


def test_equal_inputs_give_equal_bytes_and_are_encoded_once(bench):
    inputs = [bench.corpus(), bench.tokenizer()]
    first = encode.run(bench.context("encode", inputs, "a"))
    second = encode.run(bench.context("encode", inputs, "b"))
    again = encode.run(bench.context("encode", inputs, "a"))
    assert first.artifact.digest == second.artifact.digest
    assert (first.cached, second.cached, again.cached) == (False, False, True)


def test_shards_left_by_a_killed_attempt_are_overwritten(bench):
    inputs = [bench.corpus(), bench.tokenizer()]
    clean = encode.run(bench.context("encode", inputs, "clean"))
    context = bench.context("encode", inputs, "killed")
    (context.draft(encode.CODE_VERSION).folder / "train-00000.bin").write_bytes(b"half")
    assert encode.run(context).artifact.digest == clean.artifact.digest


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
        import pyarrow as pa

        (folder / "data").mkdir()
        for split in ("train", "validation"):
            pq.write_table(pa.table({"content": ["x"]}), folder / "data" / f"{split}-00000-of-00001.parquet")

    inputs = [bench.artifact("corpus", "odd", fill), bench.tokenizer()]
    with pytest.raises(DataError, match=r"train-00000-of-00001.parquet: no parquet file with a column `text`") as e:
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
    assert context.draft(encode.CODE_VERSION).existing() is None
