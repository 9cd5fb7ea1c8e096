"""The pictures of the README are what the code shows."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from tests.demo.pictures import IMAGES, chromium, live_picture, sample_run, screenshot

SVG_LIMIT_BYTES, PNG_LIMIT_BYTES = 60_000, 150_000


def test_the_live_picture_shows_the_table_and_fetches_nothing() -> None:
    text = live_picture()
    shown = "".join(ET.fromstring(text).itertext()).replace("\N{NO-BREAK SPACE}", " ")
    for fact in ("hatchery watch", "CorpusBuild", "285/400 steps (71%)", "8,721", "loss of pretrainrun/stdlib", "█"):
        assert fact in shown, fact
    assert "@font-face" not in text
    assert "url(http" not in text
    assert len(text.encode()) < SVG_LIMIT_BYTES


def test_the_live_picture_is_fresh() -> None:
    assert (IMAGES / "live.svg").read_text() == live_picture(), "run: python -m tests.demo.pictures"


def test_the_sample_report_has_a_curve_and_a_restart(tmp_path: Path) -> None:
    page = sample_run(tmp_path).read_text()
    assert "Validation perplexity" in page
    assert "restart at 250: interrupted" in page


def test_the_report_is_rendered(tmp_path: Path) -> None:
    program = chromium()
    if program is None:
        pytest.skip("Chromium is not installed")
    screenshot(sample_run(tmp_path), tmp_path / "report.png", program)
    picture = (tmp_path / "report.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < PNG_LIMIT_BYTES
    assert (IMAGES / "report.png").stat().st_size < PNG_LIMIT_BYTES
