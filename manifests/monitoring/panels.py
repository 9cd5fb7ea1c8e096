"""The panel types of all dashboards, so that they look alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Panel,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
"""The Prometheus data source selected at the top of each dashboard."""

NOTHING: Final = "none"
"""Text of a panel without data; only panels that are normally empty have it, and tests recognise them by it."""

_GRAPH_HEIGHT, _STAT_HEIGHT, _TABLE_HEIGHT = 8, 4, 9

PanelT = TypeVar("PanelT", timeseries.Panel, stat.Panel, table.Panel, bargauge.Panel)
AnyPanel = Builder[Panel]
"""A panel of any type, before layout."""


@dataclass(frozen=True)
class Query:
    """A PromQL expression and the legend of its series."""

    expr: str
    """PromQL expression."""
    legend: str = ""
    """Legend of a series, with labels in double braces."""


def _described(panel: PanelT, title: str, text: str, unit: str, *, width: int, height: int, quiet: bool) -> PanelT:
    """Sets the properties of all panels; `quiet` marks a panel that is normally empty."""
    panel = panel.title(title).description(text).unit(unit).datasource(SOURCE).span(width).height(height)
    return panel.no_value(NOTHING) if quiet else panel


def _target(query: Query, letter: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().datasource(SOURCE).expr(query.expr).legend_format(query.legend).ref_id(letter)


def graph(
    title: str, text: str, unit: str, *queries: Query, width: int = 8, stacked: bool = False, quiet: bool = False
) -> AnyPanel:
    """Lines over time; stacked lines are disjoint counts."""
    legend = common.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST)
    panel = timeseries.Panel().draw_style(GraphDrawStyle.LINE).line_width(1).fill_opacity(10)
    panel = panel.legend(legend.placement(LegendPlacement.BOTTOM).calcs([])).span_nulls(True)
    if stacked:
        panel = panel.fill_opacity(60).stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A")).min(0)
    for number, query in enumerate(queries):
        panel = panel.with_target(_target(query, "ABCDEF"[number]).range())
    return _described(panel, title, text, unit, width=width, height=_GRAPH_HEIGHT, quiet=quiet)


def number(
    title: str,
    text: str,
    unit: str,
    query: Query,
    *,
    width: int = 4,
    bad_below: float | None = None,
    bad_from: float | None = None,
    names: bool = False,
    tall: bool = False,
    quiet: bool = False,
) -> AnyPanel:
    """The current value, red outside its limits; with `names`, the names of the series instead."""
    panel = stat.Panel().graph_mode(BigValueGraphMode.NONE).color_mode(BigValueColorMode.VALUE)
    panel = panel.text_mode(BigValueTextMode.NAME if names else BigValueTextMode.VALUE)
    is_judged = bad_below is not None or bad_from is not None
    steps = [Threshold(color="red" if bad_below is not None else "green" if is_judged else "text")]
    if bad_below is not None:
        steps.append(Threshold(bad_below, "green"))
    if bad_from is not None:
        steps.append(Threshold(bad_from, "red"))
    panel = panel.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    panel = panel.with_target(_target(query, "A").instant())
    height = _GRAPH_HEIGHT if tall else _STAT_HEIGHT
    return _described(panel, title, text, unit, width=width, height=height, quiet=quiet)


def bars(title: str, text: str, unit: str, query: Query, *, width: int = 12) -> AnyPanel:
    """Horizontal bars with the current value of each series."""
    panel = bargauge.Panel().orientation(VizOrientation.HORIZONTAL).with_target(_target(query, "A").instant())
    return _described(panel, title, text, unit, width=width, height=_TABLE_HEIGHT, quiet=False)


def rows(
    title: str, text: str, unit: str, query: Query, columns: dict[str, str], *, width: int = 12, quiet: bool = False
) -> AnyPanel:
    """A table with a row per series; `columns` maps labels, or `Value`, to headings, in order."""
    keep = DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": list(columns)}})
    order = {name: place for place, name in enumerate(columns)}
    name = DataTransformerConfig(id_val="organize", options={"indexByName": order, "renameByName": columns})
    panel = table.Panel().with_transformation(keep).with_transformation(name)
    target = _target(query, "A").instant().format(PromQueryFormat.TABLE)
    for heading in (heading for label, heading in columns.items() if label != "Value"):
        panel = panel.override_by_name(heading, [DynamicConfigValue(id_val="unit", value="string")])
    panel = panel.with_target(target)
    return _described(panel, title, text, unit, width=width, height=_TABLE_HEIGHT, quiet=quiet)


def label_variable(name: str, heading: str, query: str, *, several: bool) -> dashboard.QueryVariable:
    """A variable over the values of a label; `several` allows more than one and all."""
    variable = dashboard.QueryVariable(name).label(heading).datasource(SOURCE).query(f"label_values({query})")
    variable = variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
    return variable.include_all(True).all_value(".+").multi(True) if several else variable


def page(
    uid: str,
    title: str,
    text: str,
    variables: list[dashboard.QueryVariable],
    sections: Mapping[str, Sequence[AnyPanel]],
) -> Dashboard:
    """A dashboard of rows of panels, with links to the other dashboards."""
    links = dashboard.DashboardLink("Hatchery").type(DashboardLinkType.DASHBOARDS).tags(["hatchery"])
    made = dashboard.Dashboard(title).uid(uid).description(text).tags(["hatchery"]).editable()
    made = made.time("now-6h", "now").refresh("30s").timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR)
    made = made.link(links.as_dropdown(True).include_vars(True).keep_time(True))
    made = made.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    for variable in variables:
        made = made.with_variable(variable)
    for heading, panels in sections.items():
        made = made.with_row(dashboard.Row(heading))
        for panel in panels:
            made = made.with_panel(panel)
    return made.build()
