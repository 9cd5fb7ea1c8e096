"""The dataset card: README.md with the metadata the Hub reads, and the build in numbers."""

from typing import Any, Final

from hatchery_api.format import counted
from hatchery_api.resources.corpus import CorpusBuildSpec, CorpusResult, NearDedup
from hatchery_jobs.corpus.filters import drop_reasons
from hatchery_jobs.corpus.funnel import Funnel
from hatchery_jobs.readers import DocumentSource
from hatchery_jobs.reporting import fenced, markdown_page, markdown_table, split_languages

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
"""Size categories of the Hub, each with the document count it stays below."""

_DUPLICATE_REASONS: Final = {
    "exact_duplicate": "identical to another document",
    "near_duplicate": "near-duplicate of another document",
}


def dataset_card(
    name: str, spec: CorpusBuildSpec, result: CorpusResult, sources: list[DocumentSource], funnel: Funnel
) -> str:
    """The card of one corpus."""
    sections = [
        f"# {name}",
        spec.card.description or "A text corpus for pretraining language models.",
        _loading(),
        "## Sources\n\n" + markdown_table(["Source", "Location", "Files"], _sources(sources)),
        "## How it was built\n\n" + markdown_table(["Step", "Dropped", "Documents", "Bytes"], _funnel(result)),
        _quarantine(result),
        "## Why documents were dropped\n\n" + markdown_table(["Reason", "Documents", "Meaning"], _reasons(funnel)),
        "## Duplicates\n\n" + _duplicates(spec.dedup.near, result),
        "## Splits\n\n" + markdown_table(["Split", "Documents", "Bytes", "Files"], _splits(result)),
        _split_rule(spec),
        "## Columns\n\n" + _COLUMNS,
    ]
    return markdown_page(_metadata(name, spec, result), sections)


def _metadata(name: str, spec: CorpusBuildSpec, result: CorpusResult) -> dict[str, Any]:
    # the Hub accepts ISO codes only; programming languages become tags under the language `code`
    natural, programming = split_languages(spec.card.languages)
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
    code = 'corpus = load_dataset("<this repository or folder>")\nprint(corpus["train"][0]["text"])'
    return fenced(f"from datasets import load_dataset\n\n{code}", "python")


def _sources(sources: list[DocumentSource]) -> list[list[str]]:
    return [[f"`{o.name}`", o.description, f"{o.files:,}" if o.files else ""] for o in sources]


def _funnel(result: CorpusResult) -> list[list[str]]:
    return [[f"`{s.step}`", f"{s.dropped:,}", f"{s.rows:,}", f"{s.bytes:,}"] for s in result.funnel]


def _quarantine(result: CorpusResult) -> str:
    if not result.quarantined:
        return ""
    skipped = counted(result.quarantined, "unreadable row or file", "unreadable rows or files")
    return f"Skipped {skipped}; see `quarantine.jsonl`."


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
        return "Not searched."
    text = f"Removed {counted(found.exact, 'exact duplicate')} and {counted(found.near, 'near-duplicate')}."
    if found.clusters:
        copied = counted(found.clusters, "document")
        text += f" {copied} had copies; the most frequent one occurred {found.largest:,} times."
    if near is not None:
        text += (
            f" Near-duplicates share at least {near.threshold:.0%} of their {near.ngram}-word shingles. MinHash with"
            f" {near.bands} bands of {near.rows} rows proposed pairs and exact comparison decided; the longest"
            " document of each cluster was kept."
        )
    return text


def _splits(result: CorpusResult) -> list[list[str]]:
    return [[f"`{n}`", f"{s.rows:,}", f"{s.bytes:,}", f"{s.shards:,}"] for n, s in result.splits.items()]


def _split_rule(spec: CorpusBuildSpec) -> str:
    unit = "near-duplicate cluster" if spec.split.by == "cluster" else "document"
    return f"A hash of the {unit} decides the split, independently of the other documents."


_COLUMNS: Final = """- `text`: the document
- `id`: first 16 hex digits of the sha256 of the text
- `source`, `path`, `row`: where it was read from
- `bytes`: size of the text in UTF-8
- `cluster`: smallest id among its near-duplicates and itself"""
