"""Filters by the characters of a document."""

from typing import Final

from hatchery_api.resources.corpus import AlphanumericRule
from hatchery_jobs.corpus.filters.base import DocumentView, RuleTable

RULES: Final = RuleTable()


@RULES.add(AlphanumericRule, alpha_frac="too few letters and digits")
def alphanumeric(rule: AlphanumericRule, view: DocumentView) -> str | None:
    """Drops documents whose share of letters and digits is below the minimum."""
    return "alpha_frac" if view.alphanumeric_share < rule.min else None
