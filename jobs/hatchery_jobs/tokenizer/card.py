"""The card of a tokenizer: what it is, how good it is, and what its tokens look like."""

import json
from collections.abc import Iterable
from typing import Final

import yaml
from tokenizers import Tokenizer

from hatchery_api.format import significant
from hatchery_api.resources.tokenizer import TokenizerBuildSpec, TokenizerResult
from hatchery_jobs.tokenizer.measures.metrics import Counts, encode
from hatchery_jobs.tokenizer.probes import PROGRAM

SHOWN_TOKENS: Final = 20
"""Tokens in each list."""

MEASURES: Final = (
    ("fertility", "tokens per word; a word is a run of non-whitespace"),
    ("continued_words", "share of words split into two or more tokens"),
    ("unknown", "share of tokens that are the unknown token"),
    ("rare", "share of tokens seen fewer than ten times in training"),
    ("unused_vocabulary", "share of the vocabulary that never occurs here"),
    ("chars_per_token", "characters per token"),
    ("bytes_per_token", "bytes of UTF-8 per token"),
    ("round_trip", "share of documents that decoding gives back unchanged"),
)
"""Fields of TokenizerMetrics with what they mean."""


def card(name: str, spec: TokenizerBuildSpec, tokenizer: Tokenizer, result: TokenizerResult, seen: Counts) -> str:
    """README.md with the metadata the Hub reads."""
    parts = [
        _metadata(spec),
        f"# {name}",
        spec.card.description,
        f"{_design(spec)} with {result.vocab_size} tokens, trained on {result.documents} documents.",
        _usage(),
        _measures(spec, result),
        _keywords(spec, result),
        _lists(tokenizer, seen),
        _program(spec, tokenizer),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(spec: TokenizerBuildSpec) -> str:
    data = {"license": spec.card.license, "library_name": "transformers", "tags": ["hatchery", "tokenizer"]}
    return f"---\n{yaml.safe_dump(data | _languages(spec), sort_keys=False, allow_unicode=True)}---"


def _languages(spec: TokenizerBuildSpec) -> dict[str, list[str]]:
    codes = [language for language in spec.card.languages if len(language) in (2, 3) and language.islower()]
    others = [language for language in spec.card.languages if language not in codes]
    return ({"language": codes} if codes else {}) | ({"tags": ["hatchery", "tokenizer", *others]} if others else {})


def _design(spec: TokenizerBuildSpec) -> str:
    return f"The design of `{spec.from_.base}`" if spec.from_ else "A byte-level BPE tokenizer"


def _usage() -> str:
    return (
        "```python\nfrom transformers import AutoTokenizer\n\n"
        'tokenizer = AutoTokenizer.from_pretrained("path or repository")\n```'
    )


def _measures(spec: TokenizerBuildSpec, result: TokenizerResult) -> str:
    rows = [f"| {field} | {significant(getattr(result.metrics, field))} | {meaning} |" for field, meaning in MEASURES]
    heading = f"## Measures\n\nOn at most {spec.evaluate.documents} documents of the validation split.\n"
    return "\n".join([heading, "| measure | value | meaning |", "|---|---|---|", *rows])


def _keywords(spec: TokenizerBuildSpec, result: TokenizerResult) -> str:
    if result.missing_keywords is None:
        return ""
    missing = ", ".join(f"`{word}`" for word in result.missing_keywords) or "none"
    return f"Keywords of {spec.evaluate.keywords} that are no single token: {missing}."


def _lists(tokenizer: Tokenizer, seen: Counts) -> str:
    texts = [shown(tokenizer, index) for index in range(tokenizer.get_vocab_size())]
    special = tokenizer.get_added_tokens_decoder()
    learnt = [index for index, text in enumerate(texts) if len(text) > 1 and index not in special]
    longest = sorted(learnt, key=lambda index: (-len(texts[index]), index))
    rarest = sorted(learnt, key=lambda index: (int(seen[index]), index))
    lists = {"Longest tokens": longest, "First tokens learnt": learnt, "Rarest tokens in the training text": rarest}
    return "\n\n".join(
        f"## {title}\n\n{_fenced(json.dumps(texts[i], ensure_ascii=False) for i in ids[:SHOWN_TOKENS])}"
        for title, ids in lists.items()
    )


def shown(tokenizer: Tokenizer, index: int) -> str:
    """A token as text; bytes that are no character of their own are shown as the replacement character."""
    return tokenizer.decode([index], skip_special_tokens=False)


def _program(spec: TokenizerBuildSpec, tokenizer: Tokenizer) -> str:
    if spec.evaluate.keywords == "none":
        return ""
    ids = encode(tokenizer, [PROGRAM])[0].ids
    lines = "".join(f"{shown(tokenizer, index)}·" for index in ids).split("\n")
    return f"## A program as {len(ids)} tokens\n\nEach token ends with a dot.\n\n{_fenced(lines)}"


def _fenced(lines: Iterable[str]) -> str:
    return "\n".join(["```text", *lines, "```"])
