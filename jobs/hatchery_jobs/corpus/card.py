"""The dataset card: README.md with the metadata the Hub reads and the build in numbers."""

import re
from typing import Any, Final

import yaml

from hatchery_api.resources.corpus import CorpusBuildSpec, CorpusResult, NearDedup
from hatchery_jobs.corpus.filters import drop_reasons
from hatchery_jobs.corpus.funnel import Funnel
from hatchery_jobs.readers import DocumentSource

_SIZE_CATEGORIES: Final = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
    (10**10, "1B<n<10B"),
    (10**11, "10B<n<100B"),
)
"""Names of the Hub for numbers of documents below a limit."""

_DUPLICATE_REASONS: Final = {
    "exact_duplicate": "the same as another document",
    "near_duplicate": "nearly the same as another document",
}


def dataset_card(
    name: str, spec: CorpusBuildSpec, result: CorpusResult, origins: list[DocumentSource], funnel: Funnel
) -> str:
    """The card of one corpus."""
    sections = [
        f"# {name}",
        spec.card.description or "A text corpus for pretraining language models.",
        _loading(),
        "## Sources\n\n" + _table(["Source", "Documents from", "Files"], _sources(origins)),
        "## How it was built\n\n" + _table(["Step", "Dropped", "Documents", "Bytes"], _funnel(result)),
        _quarantine(result),
        "## Why documents were dropped\n\n" + _table(["Reason", "Documents", "Meaning"], _reasons(funnel)),
        "## Duplicates\n\n" + _duplicates(spec.dedup.near, result),
        "## Splits\n\n" + _table(["Split", "Documents", "Bytes", "Files"], _splits(result)) + "\n\n" + _side(spec),
        "## Columns\n\n" + _COLUMNS,
    ]
    metadata = yaml.safe_dump(_metadata(name, spec, result), sort_keys=False, allow_unicode=True)
    return f"---\n{metadata}---\n\n" + "\n\n".join(section for section in sections if section) + "\n"


def _metadata(name: str, spec: CorpusBuildSpec, result: CorpusResult) -> dict[str, Any]:
    # the Hub takes ISO codes only; programming languages are tags under the language `code`
    natural = [language for language in spec.card.languages if re.fullmatch(r"[a-z]{2,3}", language)]
    programming = [language for language in spec.card.languages if language not in natural]
    rows = sum(size.rows for size in result.splits.values())
    files = [{"split": split, "path": f"data/{split}-*"} for split in result.splits]
    return {
        "pretty_name": name,
        "license": spec.card.license,
        "language": natural + ["code"] * bool(programming),
        "task_categories": ["text-generation"],
        "size_categories": [next((label for limit, label in _SIZE_CATEGORIES if rows < limit), "n>1T")],
        "tags": ["hatchery", "pretraining", *programming],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _loading() -> str:
    return (
        "```python\nfrom datasets import load_dataset\n\n"
        'corpus = load_dataset("<this repository or folder>")\nprint(corpus["train"][0]["text"])\n```'
    )


def _sources(origins: list[DocumentSource]) -> list[list[str]]:
    return [[f"`{o.name}`", o.description, f"{o.files:,}" if o.files else ""] for o in origins]


def _funnel(result: CorpusResult) -> list[list[str]]:
    return [[f"`{s.step}`", f"{s.dropped:,}", f"{s.rows:,}", f"{s.bytes:,}"] for s in result.funnel]


def _quarantine(result: CorpusResult) -> str:
    if not result.quarantined:
        return ""
    return f"{result.quarantined:,} unreadable rows or files were set aside; `quarantine.jsonl` lists them."


def _reasons(funnel: Funnel) -> list[list[str]]:
    meanings = drop_reasons() | _DUPLICATE_REASONS
    return [
        [f"`{reason}`", f"{funnel.reasons[reason]:,}", meanings[reason]]
        for reason in meanings
        if funnel.reasons[reason]
    ]


def _duplicates(near: NearDedup | None, result: CorpusResult) -> str:
    found = result.duplicates
    if found is None:
        return "Not looked for."
    text = f"{found.exact:,} identical and {found.near:,} nearly identical documents were removed; {found.clusters:,} "
    text += f"documents had copies, the most frequent one occurred {found.largest:,} times."
    if near is not None:
        text += (
            f" Near-duplicates share at least {near.threshold:.0%} of their {near.ngram}-word shingles. MinHash with"
            f" {near.bands} bands of {near.rows} rows proposed pairs, exact comparison decided; the longest document"
            " of a cluster was kept."
        )
    return text


def _splits(result: CorpusResult) -> list[list[str]]:
    return [[f"`{n}`", f"{s.rows:,}", f"{s.bytes:,}", f"{s.shards:,}"] for n, s in result.splits.items()]


def _side(spec: CorpusBuildSpec) -> str:
    unit = "near-duplicate cluster" if spec.split.by == "cluster" else "document"
    return f"A hash of the {unit} decides the split, independent of the other documents."


_COLUMNS: Final = """- `text`: the document
- `id`: first 16 hex digits of the sha256 of the text
- `source`, `path`, `row`: where it was read
- `bytes`: size of the text in UTF-8
- `cluster`: smallest id of its near-duplicates, itself included"""


def _table(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return "None."
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
