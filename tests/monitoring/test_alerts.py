"""Every alert fires when it should and stays quiet when not, and tells people what to do."""

import subprocess
from pathlib import Path

import pytest
import yaml
from tests.monitoring import ALERTS, ROOT

CASES = Path(__file__).with_name("alerts.test.yaml")
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"] if "alert" in rule]
NAMES = [rule["alert"] for rule in RULES]
RUNBOOKS = ROOT / "docs/runbooks"
SECTIONS = ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"]


def test_promtool_finds_nothing_wrong_with_the_rules(promtool: str) -> None:
    done = subprocess.run([promtool, "check", "rules", ALERTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_should_and_only_then(promtool: str) -> None:
    done = subprocess.run([promtool, "test", "rules", CASES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_is_seen_firing_and_quiet(name: str) -> None:
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test.get("alert_rule_test", [])]
    seen = {bool(case.get("exp_alerts")) for case in cases if case["alertname"] == name}
    # when no operator is there at all the metric is missing, so being quiet is shown with replicas only
    assert seen == {True, False}


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_every_alert_tells_how_bad_it_is_what_it_means_and_where_help_is(rule: dict) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    notes = rule["annotations"]
    assert notes["summary"].endswith(".")
    assert notes["description"].endswith(".")
    assert notes["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_has_a_runbook_with_commands(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == SECTIONS
    assert "```sh\n" in text


def test_there_is_no_runbook_without_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == set(NAMES)
