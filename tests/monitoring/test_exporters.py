"""The pages of metrics follow the conventions, as promtool knows them."""

import re
import subprocess
import urllib.request

import pytest
from tests.cluster.prometheus import Prometheus
from tests.monitoring import ROOT


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


def test_the_documentation_lists_every_metric_and_no_other(scraped: Prometheus) -> None:
    served = {re.sub(r"_(bucket|count|sum)$", "", name) for name in scraped.api("label/__name__/values")}
    served = {name for name in served if name.startswith("hatchery_")}
    text = (ROOT / "docs/monitoring.md").read_text()
    assert set(re.findall(r"hatchery_[a-z_]+", text)) == served
