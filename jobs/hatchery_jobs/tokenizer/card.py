"""The card of a tokenizer: its design, its measures, and a look at its tokens."""

import json
from typing import Any, Final

from tokenizers import Tokenizer

from hatchery_api.format import significant
from hatchery_api.resources.tokenizer import TokenizerBuildSpec, TokenizerResult
from hatchery_jobs.reporting import fenced, markdown_page, markdown_table, split_languages
from hatchery_jobs.tokenizer.measures import MEASURES, Counts, encode

LISTED_TOKENS: Final = 20
"""Tokens in each list."""

PROGRAM: Final = '''class Shelf:
    """A row of books."""

    def __init__(self, books: list[str]) -> None:
        self.books = sorted(books)

    def find(self, start: str) -> str | None:
        for book in self.books:
            if book.startswith(start):
                return book
        return None
'''
"""The program that the card shows token by token."""


def tokenizer_card(
    name: str, spec: TokenizerBuildSpec, tokenizer: Tokenizer, result: TokenizerResult, counts: Counts
) -> str:
    """README.md with the metadata the Hub reads.

    Args:
        name: name of the TokenizerBuild.
        spec: its spec.
        tokenizer: the trained tokenizer.
        result: its measures.
        counts: occurrences of each id in the training text.
    """
    code = 'tokenizer = AutoTokenizer.from_pretrained("<this repository or folder>")'
    sections = [
        f"# {name}",
        spec.card.description,
        f"{_design(spec)} with {result.vocab_size or 0:,} tokens, trained on {result.documents or 0:,} documents.",
        fenced(f"from transformers import AutoTokenizer\n\n{code}", "python"),
        _measures(spec, result),
        _keywords(spec, result),
        _token_lists(tokenizer, counts),
        _program(spec, tokenizer),
    ]
    return markdown_page(_metadata(spec), sections)


def _metadata(spec: TokenizerBuildSpec) -> dict[str, Any]:
    codes, others = split_languages(spec.card.languages)
    return {
        "license": spec.card.license,
        "library_name": "transformers",
        "tags": ["hatchery", "tokenizer", *others],
        "language": codes,
    }


def _design(spec: TokenizerBuildSpec) -> str:
    return f"The design of `{spec.from_.base}`" if spec.from_ else "A byte-level BPE tokenizer"


def _measures(spec: TokenizerBuildSpec, result: TokenizerResult) -> str:
    rows = [(name, significant(getattr(result.metrics, name)), measure.meaning) for name, measure in MEASURES.items()]
    table = markdown_table(("Measure", "Value", "Meaning"), rows)
    return f"## Measures\n\nOn at most {spec.evaluate.documents:,} documents of the validation split.\n\n{table}"


def _keywords(spec: TokenizerBuildSpec, result: TokenizerResult) -> str:
    if result.missing_keywords is None:
        return ""
    missing = ", ".join(f"`{word}`" for word in result.missing_keywords) or "none"
    return f"{spec.evaluate.keywords.capitalize()} keywords that are not a single token: {missing}."


def _token_lists(tokenizer: Tokenizer, counts: Counts) -> str:
    texts = [token_text(tokenizer, index) for index in range(tokenizer.get_vocab_size())]
    special = tokenizer.get_added_tokens_decoder()
    learned = [index for index, text in enumerate(texts) if len(text) > 1 and index not in special]
    longest = sorted(learned, key=lambda index: (-len(texts[index]), index))
    rarest = sorted(learned, key=lambda index: (int(counts[index]), index))
    lists = {"Longest tokens": longest, "First tokens learned": learned, "Rarest tokens in the training text": rarest}
    return "\n\n".join(
        f"## {title}\n\n{fenced(chr(10).join(json.dumps(texts[i], ensure_ascii=False) for i in ids[:LISTED_TOKENS]))}"
        for title, ids in lists.items()
    )


def token_text(tokenizer: Tokenizer, index: int) -> str:
    """A token as text; bytes that are not a whole character become the replacement character."""
    return tokenizer.decode([index], skip_special_tokens=False)


def _program(spec: TokenizerBuildSpec, tokenizer: Tokenizer) -> str:
    if spec.evaluate.keywords == "none":
        return ""
    ids = encode(tokenizer, [PROGRAM])[0].ids
    marked = "".join(f"{token_text(tokenizer, index)}·" for index in ids)
    return f"## A program as {len(ids)} tokens\n\nA dot ends each token.\n\n{fenced(marked)}"
