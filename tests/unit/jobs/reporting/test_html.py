"""Whatever text goes into a page, it stays text."""

from html.parser import HTMLParser

from hatchery_jobs.reporting import html_page, html_table

NASTY = "<script>alert('x')</script> & \"quotes\""


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open, self.texts, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read(page):
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_text_is_escaped_everywhere():
    sections = [(NASTY, html_table([NASTY], [[NASTY]])), ("left out", "")]
    page = read(html_page(NASTY, NASTY, sections))
    assert page.texts.count(NASTY) == 6
    assert "script" not in page.tags
    assert "left out" not in page.texts


def test_a_page_loads_nothing():
    page = html_page("t", "s", [("", "<p>x</p>")], style="p{margin:1px}")
    assert "p{margin:1px}" in page
    assert "<h2>" not in page
    for word in ("http", "src=", "href=", "url(", "@import"):
        assert word not in page
