"""Speed of the corpus kernels on the standard library, against slow references; prints one `bar` line each.

Run: .venv/bin/python -m tests.bench.corpus
"""

import sysconfig
import time
from pathlib import Path

import numpy as np
from tests.bench import corpus_reference

from hatchery_api.resources.corpus import FilterRule, Filters
from hatchery_jobs.corpus.dedup.minhash import Signer, shingle_hashes, windows
from hatchery_jobs.corpus.filters.base import DocumentView
from hatchery_jobs.corpus.filters.compile import PRESETS, compile_filters
from hatchery_jobs.readers.documents import Document

BANDS, ROWS, NGRAM = 14, 8, 5
SLOW_FILES = 60
"""Files the token-by-token reference is measured on; it takes a second for a few dozen."""


def standard_library(step: int = 1) -> list[Document]:
    """Every `step`-th readable source file of this Python's standard library."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(p for p in root.rglob("*.py") if "site-packages" not in p.parts)[::step]
    found = []
    for path in paths:
        try:
            found.append(Document("stdlib", str(path.relative_to(root)), 1, path.read_bytes().decode()))
        except UnicodeDecodeError:
            continue
    return found


def certain(rule: FilterRule) -> FilterRule:
    """A rule that drops everything it would drop by chance."""
    field = next(name for name in FilterRule.model_fields if getattr(rule, name) is not None)
    part = getattr(rule, field)
    sure = part.model_copy(update={"drop_probability": 1.0}) if hasattr(part, "drop_probability") else part
    return FilterRule(**{field: sure})


def fast_filters() -> list:
    """The preset `codeparrot` without chance."""
    return compile_filters(Filters(rules=[certain(rule) for rule in PRESETS["codeparrot"]]))


def fast_reasons(filters: list, document: Document) -> set[str]:
    """All reasons that hold for a document."""
    view = DocumentView(Document(document.source, document.path, document.row, document.text))
    return {reason for item in filters if (reason := item.reason(view))}


def sign(texts: list[bytes], signer: Signer) -> None:
    """Signatures and band keys of all texts."""
    for start, end in windows(texts):
        hashes, counts, _ = shingle_hashes(texts[start:end], NGRAM)
        signer.band_keys(signer.signatures(hashes, counts[counts > 0]))


def seconds(work) -> float:
    """CPU time of the best of four calls: other processes share the caches of the machine."""
    times = []
    for _ in range(4):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def bar(name: str, value: float, goal: float) -> None:
    """One line of result; larger is better."""
    print(f"bar {name} {value:.1f} {goal:g} {'pass' if value >= goal else 'short'}")


def main() -> None:
    """Measures and prints."""
    documents = standard_library()
    size = sum(len(document.utf8) for document in documents)
    filters = fast_filters()
    fast = seconds(lambda: [fast_reasons(filters, document) for document in documents])
    slow = seconds(lambda: [corpus_reference.filter_reasons(document.text) for document in documents])
    print(
        f"filters: {len(documents)} files, {size / 1e6:.1f} MB: {size / fast / 1e6:.1f} MB/s, reference {size / slow / 1e6:.1f}"
    )
    bar("filters-speedup", slow / fast, 5)

    texts = [document.utf8 for document in documents]
    quick = seconds(lambda: sign(texts, Signer.make(BANDS, ROWS, 1)))
    few = texts[:: max(1, len(texts) // SLOW_FILES)]
    numbers = np.random.Generator(np.random.PCG64(1)).integers(1, 2**31, (2, BANDS * ROWS), np.uint64)
    plain = seconds(lambda: [corpus_reference.signature(text, NGRAM, *numbers) for text in few])
    fast_rate, slow_rate = size / quick, sum(map(len, few)) / plain
    print(f"minhash: {fast_rate / 1e6:.1f} MB/s, reference {slow_rate / 1e6:.2f} MB/s (CPU)")
    bar("minhash-mb-per-second", fast_rate / 1e6, 40)
    bar("minhash-speedup", fast_rate / slow_rate, 5)


if __name__ == "__main__":
    main()
