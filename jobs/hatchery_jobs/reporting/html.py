"""Reports as one HTML page: no scripts, nothing loaded from elsewhere, light and dark by the reader's preference."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--page:#fff;--card:#f6f8fa;--line:#d9dee3;--text:#1f2328;--quiet:#59636e;--accent:#0969da}
@media (prefers-color-scheme:dark){
:root{--page:#0d1117;--card:#161b22;--line:#30363d;--text:#e6edf3;--quiet:#9198a1;--accent:#58a6ff}}
body{margin:0;background:var(--page);color:var(--text);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:26px;margin:0}h2{font-size:18px;margin:40px 0 12px;padding-bottom:6px;border-bottom:1px solid var(--line)}
p{margin:6px 0;color:var(--quiet)}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:6px 12px;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--quiet);font-weight:600}th:first-child,td:first-child{text-align:left}
"""
"""Colours, type, headings and tables of every page."""


def html_page(title: str, subtitle: str, sections: Iterable[tuple[str, str]], style: str = "") -> str:
    """A whole page.

    Args:
        title: heading and title of the page.
        subtitle: one line below it.
        sections: heading, which may be empty, and HTML of each section; without HTML a section is left out.
        style: CSS on top of `STYLE`.
    """
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body><main>"
        f"<h1>{escape(title)}</h1><p>{escape(subtitle)}</p>"
    )
    body = "".join((f"<h2>{escape(name)}</h2>" if name else "") + content for name, content in sections if content)
    return f"{head}{body}</main></body></html>\n"


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of text."""
    heading = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{heading}</tr></thead><tbody>{body}</tbody></table>"
