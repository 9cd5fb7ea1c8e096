"""The pages of metrics follow the conventions, as promtool knows them."""

import subprocess
import urllib.request

import pytest
from tests.cluster.prometheus import Prometheus


@pytest.mark.parametrize("job", ["hatchery-operator", "hatchery-runs"])
def test_promtool_finds_nothing_wrong_with_the_page(scraped: Prometheus, promtool: str, job: str) -> None:
    [url] = [
        target["scrapeUrl"] for target in scraped.api("targets")["activeTargets"] if target["labels"]["job"] == job
    ]
    with urllib.request.urlopen(url, timeout=5) as answer:
        page = answer.read()
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
    assert b"hatchery_" in page
