import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

from hatchery_api.conditions import Reason
from hatchery_api.format import significant
from hatchery_api.resources.tokenizer import TokenizerResult
from hatchery_jobs.pretrain.data.vocabulary import load_vocabulary
from hatchery_jobs.runtime.errors import DataError, Interrupted
from hatchery_jobs.tokenizer.blocks import PROBES
from hatchery_jobs.tokenizer.card import PROGRAM
from hatchery_jobs.tokenizer.stage import run

SPEC: dict[str, Any] = {"build": {}, "vocabSize": 600, "card": {"license": "mit", "languages": ["en", "Python"]}}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


def test_the_folder_is_a_tokenizer_with_its_measures(make: Callable[..., Any], programs: list[str]) -> None:
    outcome = run(make(SPEC, [programs[20:]], [programs[:20]]))
    tokenizer = AutoTokenizer.from_pretrained(outcome.folder)
    assert len(tokenizer) == outcome.result.vocab_size == 600
    assert (tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token) == ("<|endoftext|>",) * 3
    assert tokenizer.unk_token is None
    assert tokenizer.clean_up_tokenization_spaces is False
    for probe in (*PROBES, *programs[:5]):
        assert tokenizer.decode(tokenizer(probe)["input_ids"]) == probe
    assert outcome.result.documents == len(programs) - 20
    assert outcome.result.metrics.round_trip == 1.0
    assert outcome.result.metrics.unknown == 0.0
    stored = TokenizerResult.model_validate_json((outcome.folder / "result.json").read_bytes())
    assert stored == outcome.result
    assert json.loads((outcome.folder / "result.json").read_text())["vocabSize"] == 600


def test_equal_input_gives_equal_bytes_whatever_the_order_of_files(
    make: Callable[..., Any], programs: list[str]
) -> None:
    train, held_out = programs[20:], programs[:20]
    one = run(make(SPEC, [train], [held_out], root="one"))
    other = run(make(SPEC, [train[9:][::-1], train[:9]], [held_out[::-1]], root="other"))
    assert contents(one.folder) == contents(other.folder)


def test_a_finished_artifact_is_taken_as_it_is(make: Callable[..., Any], programs: list[str]) -> None:
    context = make(SPEC, [programs], [programs[:5]])
    first, second = run(context), run(context)
    assert (first.cached, second.cached) == (False, True)
    assert (second.artifact, second.result) == (first.artifact, first.result)


def test_too_large_a_vocabulary_says_what_was_reached(make: Callable[..., Any]) -> None:
    with pytest.raises(
        DataError, match=r"600 tokens wanted, but training reached 259 with 3 documents .*lower spec\.vocabSize"
    ) as e:
        run(make(SPEC, [["abab", "abab ab", "ab"]], [["ab"]]))
    assert e.value.reason == Reason.VOCABULARY_TOO_LARGE


def test_the_sample_is_what_the_spec_asks(make: Callable[..., Any], programs: list[str]) -> None:
    spec = SPEC | {"vocabSize": 300, "sample": {"documents": 30, "documentChars": 200}}
    assert run(make(spec, [programs], [programs[:5]])).result.documents == 30


def test_special_tokens_have_their_roles(make: Callable[..., Any], programs: list[str]) -> None:
    special = {"eos": "<e>", "bos": "<b>", "unk": "<u>", "pad": "<p>", "extra": ["<fim>", "<sep>"]}
    folder = run(make(SPEC | {"specialTokens": special}, [programs], [programs[:5]])).folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    roles = (tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token, tokenizer.pad_token)
    assert roles == ("<e>", "<b>", "<u>", "<p>")
    assert len(tokenizer) == 600
    assert len(tokenizer("a<fim>b")["input_ids"]) == 3
    assert {"<fim>", "<sep>"} <= set(tokenizer.all_special_tokens)


def test_a_tokenizer_for_encoders_and_spans(make: Callable[..., Any], programs: list[str]) -> None:
    special = {"pad": "<p>", "mask": "<m>", "cls": "[CLS]", "sep": "[SEP]", "sentinels": 3}
    folder = run(make(SPEC | {"specialTokens": special}, [programs], [programs[:5]])).folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    cls, sep, mask = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id
    encoded = tokenizer("ab", "c", return_token_type_ids=True)
    assert [n for n in encoded["input_ids"] if n in (cls, sep)] == [cls, sep, sep]
    assert encoded["input_ids"][0] == cls
    assert encoded["token_type_ids"] == [0, 0, 0, 1, 1]
    assert tokenizer.decode(tokenizer(PROBES[3])["input_ids"], skip_special_tokens=True) == PROBES[3]
    found = load_vocabulary(folder).special
    assert (found.cls, found.sep, found.mask) == (cls, sep, mask)
    assert found.pad == tokenizer.pad_token_id
    assert list(found.sentinels) == tokenizer.convert_tokens_to_ids([f"<extra_id_{n}>" for n in range(3)])
    assert found.every == set(tokenizer.all_special_ids)


def test_a_base_is_retrained_and_named_in_the_key(make: Callable[..., Any], programs: list[str]) -> None:
    base = run(make(SPEC | {"vocabSize": 500}, [programs[:25]], [programs[:5]], root="base"))
    spec = {"from": {"base": str(base.folder)}, "vocabSize": 450}
    outcome = run(make(spec, [programs[25:]], [programs[:5]]))
    tokenizer = AutoTokenizer.from_pretrained(outcome.folder)
    assert len(tokenizer) == outcome.result.vocab_size == 450
    assert tokenizer.eos_token_id < 450
    assert tokenizer.decode(tokenizer(PROBES[3])["input_ids"]) == PROBES[3]
    manifest = json.loads((outcome.folder / "manifest.json").read_text())
    assert manifest["inputs"].keys() == {"corpus", "base"}


def test_the_card_shows_measures_tokens_and_a_program(make: Callable[..., Any], programs: list[str]) -> None:
    outcome = run(make(SPEC, [programs], [programs[:5]]))
    card = (outcome.folder / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata == {
        "license": "mit",
        "library_name": "transformers",
        "tags": ["hatchery", "tokenizer", "Python"],
        "language": ["en"],
    }
    assert f"| fertility | {significant(outcome.result.metrics.fertility)} |" in card
    shown = card.split("A dot ends each token.\n\n```text\n")[1].split("\n```")[0]
    assert shown.replace("·", "").strip() == PROGRAM.strip()
    assert "`nonlocal`" in card
    assert "Longest tokens" in card
    assert "Rarest tokens" in card


def test_without_a_word_list_nothing_is_said_about_words(make: Callable[..., Any], programs: list[str]) -> None:
    outcome = run(make(SPEC | {"evaluate": {"keywords": "none"}}, [programs], [programs[:5]]))
    assert outcome.result.missing_keywords is None
    assert "Keywords" not in (outcome.folder / "README.md").read_text()


def test_a_pod_that_is_asked_to_end_ends(make: Callable[..., Any], programs: list[str]) -> None:
    context = make(SPEC, [programs], [programs[:5]])
    context.stop.set()
    with pytest.raises(Interrupted):
        run(context)
    assert not list(Path(context.job.output.root).glob("*/tokenizer.json"))
