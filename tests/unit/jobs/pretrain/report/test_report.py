"""Card and reports of finished runs, as a reader finds them."""

import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import yaml

from hatchery_api.contract import HubTarget, JobInput, Output
from hatchery_api.resources.pretrain import Loss, PretrainResult, PretrainRunSpec
from hatchery_api.status import InputRecord
from hatchery_jobs.pretrain.data.token_store import CorpusIndex, Shard, SplitIndex, TokenIndex
from hatchery_jobs.pretrain.record import TIMELINE, Event, Sample, Timeline, store_samples
from hatchery_jobs.pretrain.report import write_report
from hatchery_jobs.pretrain.state import Times

STEPS = 40
LASTING = PretrainResult(
    parameters=111_000_000, tokens_per_step=64, step=STEPS, steps=STEPS, tokens=STEPS * 64,
    loss=Loss(train=1.5, eval=2.0, initial=10.0), perplexity=math.exp(2), initial_perplexity=math.exp(10),
    bits_per_byte=0.62,
)  # fmt: skip
TIMED = LASTING.model_copy(update={"tokens_per_second": 39_012.0, "mfu": 0.414, "goodput": 0.93})


def corpus(name, digest, *splits):
    """A corpus with one shard a split: documents, tokens and bytes of text."""
    made = {}
    for split, (documents, tokens, text_bytes) in zip(("train", "validation"), splits, strict=True):
        numbers = {"documents": documents, "tokens": tokens, "text_bytes": text_bytes}
        made[split] = SplitIndex(**numbers, shards=[Shard(name=f"{name}-{split}", digest="", **numbers)])
    return CorpusIndex(name=name, digest=digest * 32, splits=made)


INDEX = TokenIndex(
    dtype="uint16",
    vocab_size=32_768,
    eos_id=0,
    corpora=[
        corpus("code", "cd", (1000, 4000, 16_000), (10, 600, 2400)),
        corpus("docs", "ef", (234, 1120, 4000), (2, 40, 100)),
    ],
)


def job(**spec):
    base = {
        "corpora": [{"corpusRef": {"name": "code"}, "weight": 3}, {"corpusRef": {"name": "docs"}, "weight": 1}],
        "tokenizerRef": {"name": "code-32k"},
        "schedule": {"steps": STEPS},
    }
    tokenizer = InputRecord(role="tokenizer", kind="TokenizerBuild", name="code-32k", uri="/x", digest="ab" * 32)
    return JobInput[PretrainRunSpec](
        kind="PretrainRun", namespace="lab", name="small", uid="1", stage="train", attempt=1, inputs=[tokenizer],
        spec=PretrainRunSpec.model_validate(base | spec), output=Output(root="/x"), hub=HubTarget(endpoint="http://h"),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """What a run leaves: killed once, rolled back once, measured five times."""
    lines = []
    for step in range(STEPS + 1):
        if step:
            lines.append({"step": step, "loss": 10 - step / 5, "learning_rate": 1e-3, "gradient_norm": 1.0})
        if step % 10 == 0:
            lines.append({"step": step, "eval_loss": 10 - step / 5, "bits_per_byte": 3 - step / 20})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    store_samples(
        tmp_path / "samples.jsonl",
        [
            Sample(step=step, prompt="def <b>(", text=f" # after {step} ```", tokens=3, ended=False)
            for step in range(0, STEPS + 1, 10)
        ],
        0,
    )
    events = Timeline(tmp_path / "run" / TIMELINE)
    for first, last in ((0, 15), (10, 30), (20, STEPS)):
        if first != 20:
            events.add(Event.BEGAN, first, workers=2)
        for step in range(first + 1, last + 1):
            events.updated(step, 64, Times(data=0.1, compute=0.2, optimizer=0.05, total=0.4))
        events.add(Event.CHECKPOINT, last, seconds=2.0)
        if last == 30:
            events.add(Event.INTERVENED, 30, action="rollback", reason="lossSpike", to=20)
    events.add(Event.CHECKPOINT_FAILED, 25, error="disk full")
    events.add(Event.ENDED, STEPS, cause="done")
    events.close()
    return tmp_path


class Page(HTMLParser):
    """The texts of a page by element, what it would fetch, and whether its tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.fetched = [], {}, []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.fetched += [value for name, value in attributes if name in {"src", "href", "data", "action"}]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)


def pages(folder, spec=None, lasting=LASTING, timed=TIMED, index=INDEX):
    write_report(folder, spec or job(), index, lasting, timed)
    return {name: (folder / name).read_text() for name in ("README.md", "report.html", "loss.svg", "run/report.html")}


def test_reports_are_whole_pages_that_fetch_nothing_and_run_nothing(folder):
    for text in (pages(folder)[name] for name in ("report.html", "run/report.html")):
        page = Page(text)
        assert page.fetched == []
        assert "script" not in page.texts
        assert "@import" not in text
        assert "url(" not in text
        assert "prefers-color-scheme:dark" in text


def test_the_report_with_times_shows_speed_restarts_and_roll_backs(folder):
    page = Page(pages(folder)["run/report.html"])
    tiles = dict(zip(page.texts["span"], page.texts["b"], strict=False))
    assert tiles["Tokens per second"] == "39,012"
    assert tiles["Model FLOPs utilization"] == "41.4%"
    assert tiles["Goodput"] == "93.0%"
    assert tiles["Restarts"] == "1"
    cells = page.texts["td"]
    rows = dict(pairwise(cells))
    assert rows["Restart: killed"] == "1"
    assert rows["Rollback: lossSpike"] == "1"
    assert rows["Checkpoints, 2.0 s each"] == "3"
    assert rows["Failed checkpoints"] == "1"
    assert page.texts["title"].count("restart at 10: killed") == 4  # in each of the four charts
    assert page.texts["title"].count("rollback at 30: lossSpike") == 4
    shares = [text for text in page.texts["span"] if text.endswith("%")]
    assert shares == ["data 25.0%", "compute 50.0%", "optimizer 12.5%", "other 12.5%"]


def test_the_lasting_pages_say_nothing_of_times_and_are_equal_for_equal_runs(folder):
    first = pages(folder)
    events = Timeline(folder / "run" / TIMELINE)
    events.add(Event.BEGAN, 40, workers=8)
    events.close()
    other = PretrainResult.model_validate(TIMED.wire() | {"tokensPerSecond": 1.0, "mfu": None, "resumedFrom": [4]})
    second = pages(folder, timed=other)
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"run/report.html"}
    words = " ".join(first[name] for name in sorted(changed ^ first.keys())).lower()
    assert not re.search("restart at|tokens per second|goodput|killed|mfu|rollback at", words)


def test_numbers_data_and_texts_are_those_of_the_run(folder):
    page = Page(pages(folder)["report.html"])
    tiles = dict(zip(page.texts["span"], page.texts["b"], strict=False))
    assert (tiles["Parameters"], tiles["Trained on"], tiles["Epochs"]) == ("111,000,000", "2,560", "0.5000")
    assert (tiles["Validation loss"], tiles["Validation perplexity"]) == ("2.000", "7.389")
    cells = page.texts["td"]
    at = cells.index("code")
    assert cells[at : at + 4] == ["code", "75.0%", "1,000", "cdcdcdcdcdcd"]
    assert "def <b>(" in page.texts["b"]  # escaped: it is text
    assert cells.count(" # after 40 ```") == 1


def test_texts_of_many_updates_are_chosen_evenly_with_the_first_and_the_last(folder):
    many = [Sample(step=n, prompt="p", text=f"t{n}", tokens=1, ended=True) for n in range(100)]
    store_samples(folder / "samples.jsonl", many, 0)
    texts = [t for t in Page(pages(folder)["report.html"]).texts["td"] if re.fullmatch(r"t\d+", t)]
    assert texts == ["t0", "t14", "t28", "t42", "t56", "t70", "t84", "t99"]


def parts(card):
    _, metadata, text = card.split("---\n", 2)
    return yaml.safe_load(metadata), text


@pytest.mark.parametrize(
    ("objective", "architecture", "pipeline", "loader", "words"),
    [
        ({"type": "causal"}, "llama", "text-generation", "AutoModelForCausalLM", "to predict the next token"),
        ({"type": "masked"}, "roberta", "fill-mask", "AutoModelForMaskedLM", "to restore masked tokens"),
        (
            {"type": "masked", "masked": {"nextSentence": True}},
            "bert",
            "fill-mask",
            "AutoModelForMaskedLM",
            "whether two segments follow each other",
        ),
        ({"type": "seq2seq"}, "t5", "text2text-generation", "AutoModelForSeq2SeqLM", "spans of text that are left out"),
        (
            {"type": "seq2seq", "seq2seq": {"task": "commentToCode"}},
            "t5",
            "text2text-generation",
            "AutoModelForSeq2SeqLM",
            "write the code that a comment describes",
        ),
    ],
)
def test_the_card_of_every_objective_says_what_it_is_and_how_to_load_it(
    folder, objective, architecture, pipeline, loader, words
):
    import transformers

    spec = job(objective=objective, model={"architecture": architecture})
    metadata, text = parts(pages(folder, spec)["README.md"])
    assert metadata["pipeline_tag"] == pipeline
    assert metadata["model-index"][0]["results"][0]["metrics"][0]["value"] == pytest.approx(math.exp(2), abs=1e-4)
    assert metadata["model-index"][0]["results"][0]["task"]["type"] == pipeline
    assert f"import {loader}, AutoTokenizer" in text
    assert hasattr(transformers, loader)
    assert words in text


def test_the_card_shows_curve_data_texts_limits_and_licence(folder):
    metadata, text = parts(pages(folder, job(card={"license": "apache-2.0", "languages": ["code"]}))["README.md"])
    assert (metadata["license"], metadata["language"]) == ("apache-2.0", ["code"])
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "Use",
        "Training",
        "Data",
        "Evaluation",
        "Samples",
        "Intended use and limits",
    ]
    assert "![Loss by update](loss.svg)" in text
    assert "| code | 75.0% | 1,000 | `cdcdcdcdcdcd` |" in text
    assert "| 40 | 2.000 | 2.000 | 1.000 |" in text
    assert "\n````text\ndef <b>( # after 40 ```\n````" in text  # its backticks do not end the block
    assert "after 30" not in text
    assert len(re.findall("^```", text, re.MULTILINE)) == 2 + 2  # the block of code to load it, and the sample's
    assert "guard" not in text


def test_the_card_tells_what_the_guard_left_out(folder):
    result = LASTING.model_copy(update={"skipped": 3, "rollbacks": 1})
    _, text = parts(pages(folder, lasting=result)["README.md"])
    assert "the loss guard skipped 3 batches, with 1 rollback to an earlier checkpoint" in text
    assert "| Skipped by the guard | 3 batches |" in text


def test_a_run_on_text_that_was_not_encoded_has_its_pages_too(folder):
    corpora = [{"hub": {"dataset": "lab/code"}}, {"files": {"urls": ["s3://texts/a.txt"]}}]
    found = pages(folder, job(corpora=corpora, data={"loading": "streaming"}), index=None)
    _, text = parts(found["README.md"])
    assert "| lab/code | by size |  |  |" in text
    assert "| s3://texts/a.txt | by size |  |  |" in text
    assert "Vocabulary" not in text
    Page(found["report.html"])


def test_a_run_without_measurements_samples_or_timeline_has_its_pages_too(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n')
    bare = PretrainResult(parameters=10, step=1, steps=1, tokens=64)
    found = pages(tmp_path, lasting=bare, timed=bare)
    metadata, text = parts(found["README.md"])
    assert "model-index" not in metadata
    assert "## Samples" not in text
    assert "no data" in Page(found["report.html"]).texts["text"]
