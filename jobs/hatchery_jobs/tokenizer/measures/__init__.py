"""Measures of a trained tokenizer.

Only `tokenizer` may import it.
"""

from hatchery_jobs.tokenizer.measures.keywords import missing_keywords
from hatchery_jobs.tokenizer.measures.metrics import MEASURES, Counts, count_ids, encode, measure_tokenizer

__all__ = ["MEASURES", "Counts", "count_ids", "encode", "measure_tokenizer", "missing_keywords"]
