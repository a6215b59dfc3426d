"""The look of our dashboards: what a query, a panel, a row and a colour are in all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

# Okabe and Ito's colours, which people with any kind of colour vision tell apart, and a grey for what is left over.
ORANGE, SKY_BLUE, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#999999"

CAUSES = {"input": ORANGE, "contention": PURPLE, "straggler": VERMILLION, "communication": BLUE, "rest": GREY}
PARTS = {**CAUSES, "compute": GREEN}  # of a step

IMAGES_PER_SECOND = "suffix:images/s"
STEP_AGES = {120.0: ORANGE, 600.0: VERMILLION}  # seconds; the second is HvdtrainRunStuck's

DATASOURCE = DataSourceRef("prometheus", "${datasource}")  # chosen at the dashboard's head

Panel = timeseries.Panel | stat.Panel | table.Panel | heatmap.Panel | statetimeline.Panel
Kind = TypeVar("Kind", timeseries.Panel, stat.Panel, table.Panel, heatmap.Panel, statetimeline.Panel)


@dataclass(frozen=True)
class Query:
    expr: str
    legend: str = ""
    """Name of its series, with labels as in {{rank}}."""


@dataclass(frozen=True)
class Column:
    """Of a table: a label, or the value of a query, which is `Value #B` for the second."""

    field: str
    title: str
    unit: str = ""
    link: str = ""


def board(title: str, uid: str, description: str) -> dashboard.Dashboard:
    made = dashboard.Dashboard(title).uid(uid).description(description).tags(["hvdtrain"]).readonly()
    made.tooltip(DashboardCursorSync.CROSSHAIR).time("now-1h", "now").refresh("15s").timezone("browser")
    made.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    others = dashboard.DashboardLink("hvdtrain").type(DashboardLinkType.DASHBOARDS).tags(["hvdtrain"])
    return made.link(others.as_dropdown(True).keep_time(True))


def lay_out(made: dashboard.Dashboard, sections: Mapping[str, Sequence[Panel]]) -> dashboard.Dashboard:
    """Put the panels, numbered from 1 on, under the titles of their rows; the section without a title has no row."""
    numbers = iter(range(1, 1000))
    for title, panels in sections.items():
        if title:
            made.with_row(dashboard.Row(title).id(next(numbers)))
        for panel in panels:
            made.with_panel(panel.id(next(numbers)))
    return made


def time_series(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    colours: Mapping[str, str] | None = None,
    stacked: bool = False,
    least: float | None = None,
    most: float | None = None,
) -> timeseries.Panel:
    """Lines over time; `colours` by a regular expression for the whole name of a series."""
    panel = _begun(timeseries.Panel(), title, description, unit, queries)
    panel.line_width(1).fill_opacity(70 if stacked else 5).show_points(common.VisibilityMode.NEVER)
    panel.tooltip(options.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI)).legend(_legend(True))
    if stacked:
        panel.stacking(options.StackingConfig().mode(common.StackingMode.NORMAL))
    if least is not None:
        panel.min(least)
    if most is not None:
        panel.max(most)
    for name, colour in (colours or {}).items():
        panel.override_by_regexp(f"/^{name}$/", [_fixed(colour)])
    return panel.span(12)


def filled_between(panel: timeseries.Panel, low: str, high: str, colour: str) -> timeseries.Panel:
    """Instead of the lines of the series `low` and `high`, a band."""
    bare = [_fixed(colour), DynamicConfigValue("custom.lineWidth", 0)]
    panel.override_by_name(low, [*bare, DynamicConfigValue("custom.fillOpacity", 0)])
    fill = [DynamicConfigValue("custom.fillBelowTo", low), DynamicConfigValue("custom.fillOpacity", 25)]
    return panel.override_by_name(high, [*bare, *fill])


def number(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    decimals: int | None = None,
    steps: Mapping[float, str] | None = None,
    colours: Mapping[str, str] | None = None,
) -> stat.Panel:
    """The latest value, large, under its series' name if that has one; coloured from each of `steps` on, or by name."""
    panel = _begun(stat.Panel(), title, description, unit, queries)
    named = any(query.legend for query in queries)
    panel.text_mode(common.BigValueTextMode.VALUE_AND_NAME if named else common.BigValueTextMode.VALUE)
    panel.color_mode(common.BigValueColorMode.VALUE).graph_mode(common.BigValueGraphMode.NONE)
    panel.reduce_options(options.ReduceDataOptions().calcs(["lastNotNull"]))
    _colour_by_steps(panel, SKY_BLUE, steps or {})
    for name, colour in (colours or {}).items():
        panel.override_by_name(name, [_fixed(colour)])
    if decimals is not None:
        panel.decimals(decimals)
    return panel.height(4).span(3)


def rows(
    title: str, description: str, *queries: Query, columns: Sequence[Column], sorted_by: str | None = None
) -> table.Panel:
    """A table of the latest values; what agrees in all labels that the queries share is one row."""
    panel = _begun(table.Panel(), title, description, "short", queries, latest=True)
    places = {column.field: place for place, column in enumerate(columns)}
    titles = {column.field: column.title for column in columns}
    values = ("Value", *(f"Value #{_letter(place)}" for place in range(len(queries))))
    labels = ("Time", "__name__", "instance", "job", "run", "rank")
    hidden = {name: True for name in (*labels, *values) if name not in places}
    organize = {"excludeByName": hidden, "indexByName": places, "renameByName": titles}
    panel.with_transformation(DataTransformerConfig("merge", options={}))
    panel.with_transformation(DataTransformerConfig("organize", options=organize))
    for column in columns:
        if column.unit:
            panel.override_by_name(column.title, [DynamicConfigValue("unit", column.unit)])
        if column.link:
            link = {"title": f"Dashboard of this {column.title.lower()}", "url": column.link}
            panel.override_by_name(column.title, [DynamicConfigValue("links", [link])])
    if sorted_by:
        panel.sort_by([options.TableSortByFieldState().display_name(sorted_by).desc(True)])
    return panel.span(12)


def heat_map(title: str, description: str, query: Query, *, unit: str) -> heatmap.Panel:
    """A line of cells per series, in the order of their names if these are numbers."""
    panel = _begun(heatmap.Panel(), title, description, unit, [query])
    panel.calculate(False).cell_gap(0).cell_values(heatmap.CellValues().unit(unit))
    panel.color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Viridis").steps(64))
    return panel.y_axis(heatmap.YAxisConfig().unit("none")).span(12)


def state_timeline(
    title: str, description: str, query: Query, *, unit: str, steps: Mapping[float, str] | None = None
) -> statetimeline.Panel:
    """A bar over time per series, coloured by its value: from each of `steps` on another, or in shades of blue."""
    panel = _begun(statetimeline.Panel(), title, description, unit, [query])
    panel.show_value(common.VisibilityMode.AUTO).merge_values(True).line_width(0).fill_opacity(80)
    if steps:
        _colour_by_steps(panel, GREY, steps)
    else:
        panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.CONTINUOUS_BLUES))
    return panel.legend(_legend(False)).span(12)


def _begun(
    panel: Kind, title: str, description: str, unit: str, queries: Sequence[Query], latest: bool = False
) -> Kind:
    panel.title(title).description(description).unit(unit).datasource(DATASOURCE).height(8)
    for place, query in enumerate(queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(_letter(place))
        if latest:
            panel.with_target(target.instant().format(PromQueryFormat.TABLE))
        else:
            panel.with_target(target.range().format(PromQueryFormat.TIME_SERIES))
    return panel


def _colour_by_steps(panel: stat.Panel | statetimeline.Panel, first: str, steps: Mapping[float, str]) -> None:
    thresholds = [Threshold(None, first), *(Threshold(value, colour) for value, colour in steps.items())]
    panel.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(thresholds))
    panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))


def _legend(shown: bool) -> options.VizLegendOptions:
    legend = options.VizLegendOptions().show_legend(shown).placement(common.LegendPlacement.BOTTOM)
    return legend.display_mode(common.LegendDisplayMode.LIST)


def _fixed(colour: str) -> DynamicConfigValue:
    return DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})


def _letter(place: int) -> str:
    return chr(ord("A") + place)
