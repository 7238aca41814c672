"""Grafana's JSON and the runbook's page, from `panels.py` and `ops/RUNBOOK.md`.

python -m ops.monitoring.dashboards
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    BigValueTextMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
)
from markdown_it import MarkdownIt

from ops.monitoring.panels import BOARDS, SWAPS, Board, Kind, Panel, Query

OPS = Path(__file__).resolve().parents[1]
DASHBOARDS = OPS / "grafana" / "dashboards"
RUNBOOK = OPS / "RUNBOOK.md"
RUNBOOK_PAGE = OPS / "prometheus" / "user" / "runbook.html"
# Where Prometheus serves the page when it is started with --web.user-assets; a variable of each dashboard.
RUNBOOK_URL = "http://localhost:9090/user/runbook.html"

_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_HEIGHT = 7
_GOOD, _BAD = "green", "red"
_Builder = timeseries.Panel | stat.Panel | statetimeline.Panel


def made(board: Board) -> str:
    """One dashboard as JSON."""
    builder = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["lte-daemon"])
        .time("now-6h", "now")
        .refresh("30s")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Dashboards")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["lte-daemon"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .link(dashboard.DashboardLink("Runbook").type(DashboardLinkType.LINK).url("${runbook}"))
    )
    for variable in _variables():
        builder.with_variable(variable)
    if board.swaps:
        builder.annotation(_annotation("Swaps of the adapter", SWAPS))
    number = 0
    for row in board.rows:
        builder.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            number += 1
            builder.with_panel(_panel(panel).id(number))
    return JSONEncoder(sort_keys=True, indent=2).encode(builder.build()) + "\n"


def _variables() -> Iterator[
    dashboard.DatasourceVariable | dashboard.QueryVariable | dashboard.TextBoxVariable
]:
    yield dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    yield (
        dashboard.QueryVariable("instance")
        .label("Daemon")
        .datasource(_SOURCE)
        .query("label_values(lte_build, instance)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(True, ["All"], ["$__all"]))
    )
    address = VariableOption(True, RUNBOOK_URL, RUNBOOK_URL)
    yield (
        dashboard.TextBoxVariable("runbook")
        .label("Runbook")
        .description("Where the runbook is served.")
        .default_value(RUNBOOK_URL)
        .current(address)
        .options([address])
    )


def _annotation(name: str, query: Query) -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(_SOURCE)
        .enable(True)
        .icon_color("purple")
        .expr(query.selected)
    )


def _panel(panel: Panel) -> _Builder:
    builder = _builder(panel)
    builder.title(panel.title).description(panel.description).datasource(_SOURCE).unit(panel.unit)
    builder.height(_HEIGHT).span(panel.width)
    if panel.minimum is not None:
        builder.min(panel.minimum)
    if panel.maximum is not None:
        builder.max(panel.maximum)
    if panel.alert:
        url = "${runbook}#" + panel.alert.lower()
        builder.links(
            [dashboard.DashboardLink(f"Runbook: {panel.alert}").type(DashboardLinkType.LINK).url(url)]
        )
    for query, ref_id in zip(panel.queries, "ABCDE", strict=False):
        target = prometheus.Dataquery().expr(query.selected).legend_format(query.legend).ref_id(ref_id)
        builder.with_target(target.datasource(_SOURCE).range())
    return builder


def _builder(panel: Panel) -> _Builder:
    if panel.kind is Kind.LINES:
        return _lines(panel)
    return _number(panel) if panel.kind is Kind.NUMBER else _states(panel)


def _lines(panel: Panel) -> timeseries.Panel:
    legend = (
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    builder = (
        timeseries.Panel().legend(legend).tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    builder.line_width(1.5).fill_opacity(6).show_points(VisibilityMode.AUTO).span_nulls(False)
    if panel.bad_below is not None or panel.bad_above is not None:
        style = common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        builder.thresholds(_thresholds(panel)).thresholds_style(style)
    return builder


def _number(panel: Panel) -> stat.Panel:
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"])
    several = len(panel.queries) > 1 or "{{" in panel.queries[0].legend
    text = BigValueTextMode.VALUE_AND_NAME if several else BigValueTextMode.VALUE
    builder = stat.Panel().reduce_options(reduced).graph_mode(BigValueGraphMode.AREA).text_mode(text)
    return builder.thresholds(_thresholds(panel))


def _states(_panel: Panel) -> statetimeline.Panel:
    steps = [Threshold(None, "transparent"), Threshold(0.5, "blue")]
    thresholds = dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
    colours = dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS)
    return statetimeline.Panel().show_value(VisibilityMode.NEVER).color_scheme(colours).thresholds(thresholds)


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    steps = [Threshold(None, _GOOD)]
    if panel.bad_below is not None:
        steps = [Threshold(None, _BAD), Threshold(panel.bad_below, _GOOD)]
    if panel.bad_above is not None:
        steps.append(Threshold(panel.bad_above, _BAD))
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def runbook_page(markdown: str) -> str:
    """The runbook as HTML; each heading can be linked to by its text in small letters."""
    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(markdown)
    for token, inside in pairwise(tokens):
        if token.type == "heading_open":
            token.attrs["id"] = inside.content.lower().replace(" ", "-")
    body = parser.renderer.render(tokens, parser.options, {})
    style = (
        "body{font-family:sans-serif;max-width:60em;margin:2em auto}td,th{padding:2px 8px;text-align:left}"
    )
    return f"<!doctype html><meta charset='utf-8'><title>lte runbook</title><style>{style}</style>\n{body}"


def files() -> dict[Path, str]:
    """Everything that is generated, by where it stands."""
    boards = {DASHBOARDS / f"{board.uid}.json": made(board) for board in BOARDS}
    return {**boards, RUNBOOK_PAGE: runbook_page(RUNBOOK.read_text("utf-8"))}


def main() -> None:
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(OPS.parent))


if __name__ == "__main__":
    main()
