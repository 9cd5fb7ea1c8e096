"""Cards in Markdown, pages in HTML and charts in SVG: one table, one page shell and one chart for every stage.

Every stage may import it. It imports no stage, and neither torch nor transformers nor datasets.
"""

from hatchery_jobs.reporting.html import html_page, html_table
from hatchery_jobs.reporting.markdown import fenced, markdown_page, markdown_table, split_languages
from hatchery_jobs.reporting.svg import CHART_STYLE, Chart, Line, Mark

__all__ = [
    "CHART_STYLE",
    "Chart",
    "Line",
    "Mark",
    "fenced",
    "html_page",
    "html_table",
    "markdown_page",
    "markdown_table",
    "split_languages",
]
