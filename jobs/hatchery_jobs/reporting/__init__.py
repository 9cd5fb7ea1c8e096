"""Cards in Markdown and pages in HTML: one table, one escape and one page shell for every stage.

Every stage may import it. It imports no stage, and neither torch nor transformers nor datasets.
"""

from hatchery_jobs.reporting.html import html_page, html_table
from hatchery_jobs.reporting.markdown import fenced, markdown_page, markdown_table, split_languages

__all__ = [
    "fenced",
    "html_page",
    "html_table",
    "markdown_page",
    "markdown_table",
    "split_languages",
]
