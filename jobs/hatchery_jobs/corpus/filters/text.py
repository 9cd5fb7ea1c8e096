"""Filters for any text: by size, line length and characters."""

from typing import Final

from hatchery_api.resources.corpus import AlphanumericRule, LineLengthRule, SizeRule
from hatchery_jobs.corpus.filters.base import DocumentView, RuleTable

RULES: Final = RuleTable()


@RULES.add(SizeRule, size_min="smaller than the minimum size", size_max="larger than the maximum size")
def size(rule: SizeRule, view: DocumentView) -> str | None:
    """Drops documents outside the size range, in bytes of UTF-8."""
    text_bytes = len(view.document.utf8)
    return "size_min" if text_bytes < rule.min_bytes else "size_max" if text_bytes > rule.max_bytes else None


@RULES.add(
    LineLengthRule, line_max="has a line above the maximum length", line_mean="mean line length above the maximum"
)
def line_length(rule: LineLengthRule, view: DocumentView) -> str | None:
    """Drops documents with an overlong line, or overlong lines on average; lengths in characters."""
    lengths = view.line_chars
    if not lengths:
        return None
    return "line_max" if max(lengths) > rule.max else "line_mean" if sum(lengths) / len(lengths) > rule.mean else None


@RULES.add(AlphanumericRule, alpha_frac="too few letters and digits")
def alphanumeric(rule: AlphanumericRule, view: DocumentView) -> str | None:
    """Drops documents whose share of letters and digits is below the minimum."""
    return "alpha_frac" if view.alphanumeric_share < rule.min else None
