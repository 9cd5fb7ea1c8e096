"""The committed dashboards are what the code makes, and what Grafana's schema allows."""

import json
import re
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from manifests.monitoring.generate import generated_files
from tests.monitoring import DASHBOARDS, ROOT

UNITS = {"short", "s", "bytes", "percentunit", "reqps", "ops", "cps", "sci", "h", "dateTimeAsIso"}
"""Units of Grafana that are used."""

dashboards = pytest.mark.parametrize("content", DASHBOARDS.values(), ids=DASHBOARDS.keys())
panels = pytest.mark.parametrize(
    "panel",
    [
        pytest.param(panel, id=f"{name}: {panel['title']}")
        for name, content in DASHBOARDS.items()
        for panel in content["panels"]
        if panel["type"] != "row"
    ],
)


def test_the_committed_files_are_those_the_code_makes() -> None:
    assert {name: (ROOT / name).read_text() for name in generated_files()} == generated_files()
    assert {f"charts/hatchery/dashboards/{name}.json" for name in DASHBOARDS} <= generated_files().keys()


@dashboards
def test_grafanas_own_model_reads_every_field_of_it(content: dict[str, Any]) -> None:
    assert json.loads(json.dumps(Dashboard.from_json(content), cls=JSONEncoder)) == content


@dashboards
def test_panels_lie_side_by_side_and_never_overlap(content: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in content["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells


@dashboards
def test_every_variable_that_is_used_is_there(content: dict[str, Any]) -> None:
    known = {variable["name"] for variable in content["templating"]["list"]} | {
        "__rate_interval",
        "__range",
        "__range_s",
    }
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(content["panels"]))) <= known


def test_dashboards_can_be_told_apart() -> None:
    assert len({content["uid"] for content in DASHBOARDS.values()}) == len(DASHBOARDS)
    assert {content["title"] for content in DASHBOARDS.values()} == {
        "Hatchery / Fleet",
        "Hatchery / Run",
        "Hatchery / Evaluation",
        "Hatchery / Operator",
    }
    for content in DASHBOARDS.values():
        titles = [panel["title"] for panel in content["panels"] if panel["type"] != "row"]
        doubled = {title for title in titles if titles.count(title) > 1}
        # as a number for now and as a line over time
        assert doubled <= {"Longest wait"}


@panels
def test_a_person_can_read_the_panel(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    is_drawn = panel["type"] in ("timeseries", "bargauge")
    for target in panel["targets"]:
        legend = target.get("legendFormat", "")
        assert legend or not is_drawn
        grouped = re.findall(r"\{\{(\w+)\}\}", legend)
        assert all(label in target["expr"] or label in ("instance", "name", "version") for label in grouped)
