"""A real Prometheus evaluates every expression of every panel and alert over the pages of the real exporters."""

import math
import re
from typing import Any

import pytest
import yaml
from manifests.monitoring.panels import NOTHING
from tests.monitoring import ALERTS, DASHBOARDS
from tests.monitoring.conftest import Scraped
from tests.support.operator.exporters import NAME, NAMESPACE

CHOSEN = {
    "namespace": NAMESPACE,
    "name": NAME,
    "kind": ".+",
    "task": ".+",
    "metric": ".+",
    "__rate_interval": "1m",
    "__range": "5m",
    "__range_s": "300",
}
SEVERAL = {**CHOSEN, "name": ".+"}
METRIC = re.compile(r"\b(?:hatchery[_:]|process_)[a-z0-9_:]+")

PANELS = [
    pytest.param(dashboard, panel, id=f"{dashboard}: {panel['title']}")
    for dashboard, content in DASHBOARDS.items()
    for panel in content["panels"]
    if panel["type"] != "row"
]
VARIABLES = [
    pytest.param(dashboard, variable, id=f"{dashboard}: {variable['name']}")
    for dashboard, content in DASHBOARDS.items()
    for variable in content["templating"]["list"]
    if variable["type"] == "query"
]
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def filled(expression: str, dashboard: str) -> str:
    """The expression as Grafana sends it, with a choice for every variable."""
    values = CHOSEN if dashboard == "run" else SEVERAL
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expression)


def is_number(series: dict[str, Any]) -> bool:
    return not math.isnan(float(series["value"][1]))


def unknown_metrics(server: Scraped, expression: str) -> set[str]:
    known = set(server.api("label/__name__/values")) | {rule["record"] for rule in RULES if "record" in rule}
    without_values = re.sub(r'"[^"]*"', '""', expression)
    return set(METRIC.findall(without_values)) - known


@pytest.mark.parametrize(("dashboard", "panel"), PANELS)
def test_every_panel_shows_something(scraped: Scraped, dashboard: str, panel: dict[str, Any]) -> None:
    is_normally_empty = panel["fieldConfig"]["defaults"].get("noValue") == NOTHING
    for target in panel["targets"]:
        expression = filled(target["expr"], dashboard)
        assert unknown_metrics(scraped, expression) == set()
        found = scraped.query(expression)
        assert is_normally_empty or any(map(is_number, found)), expression


@pytest.mark.parametrize(("dashboard", "variable"), VARIABLES)
def test_every_variable_offers_something(scraped: Scraped, dashboard: str, variable: dict[str, Any]) -> None:
    selector, _, label = variable["query"].removeprefix("label_values(").removesuffix(")").rpartition(", ")
    assert scraped.query(f"group by ({label}) ({filled(selector, dashboard)})"), variable["query"]


@pytest.mark.parametrize("rule", RULES, ids=[rule.get("alert") or rule["record"] for rule in RULES])
def test_every_rule_is_about_metrics_that_exist(scraped: Scraped, rule: dict[str, Any]) -> None:
    assert unknown_metrics(scraped, rule["expr"]) == set()
    scraped.query(rule["expr"])


def test_prometheus_evaluates_all_rules_without_an_error(scraped: Scraped) -> None:
    rules = [rule for group in scraped.api("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(RULES)
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] == "err"} == {}


def test_a_failed_run_of_the_real_exporter_fires_the_real_alerts(scraped: Scraped) -> None:
    fired = {str(series["metric"]["alertname"]) for series in scraped.query('ALERTS{alertstate="firing"}')}  # type: ignore[index]
    assert fired == {"HatcheryRunFailed", "HatcheryLossNotFinite"}


def test_series_of_the_pod_carry_the_names_of_the_target_and_not_twice(scraped: Scraped) -> None:
    [series] = scraped.query("hatchery_train_step")
    assert series["metric"] == {
        "__name__": "hatchery_train_step",
        "namespace": NAMESPACE,
        "name": NAME,
        "kind": "PretrainRun",
        "job": "hatchery-runs",
        "instance": series["metric"]["instance"],  # type: ignore[index]
    }


@pytest.mark.parametrize("title", ["Phase", "Progress", "Training loss", "Validation loss", "Attempts"])
def test_a_run_that_has_ended_still_shows_how(scraped: Scraped, title: str) -> None:
    [panel] = [panel for panel in DASHBOARDS["run"]["panels"] if panel["title"] == title]
    expression = panel["targets"][0]["expr"].replace("$namespace", NAMESPACE).replace("$name", "PretrainRun-Succeeded")
    [series] = scraped.query(expression)
    assert is_number(series)
