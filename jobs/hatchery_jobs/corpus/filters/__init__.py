"""Filters: rules that keep a document or drop it with a named reason.

`text` and `code` register rule models with their functions and reasons; `compile` puts the rules of a spec in order.
Only `corpus` may import it.
"""

from hatchery_jobs.corpus.filters.compile import PRESETS, Filter, compile_filters, drop_reasons, first_drop

__all__ = ["PRESETS", "Filter", "compile_filters", "drop_reasons", "first_drop"]
