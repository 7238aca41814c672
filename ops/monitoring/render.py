"""Pictures of the dashboards from a Prometheus, as SVG: what Grafana would show, without Grafana."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ops.monitoring.panels import SWAPS, Board, Kind, Panel, Query
from ops.monitoring.server import Series

Fetch = Callable[[str], Sequence[Series]]
Samples = Sequence[tuple[float, float]]

COLOURS = ("#3274d9", "#e0752d", "#299c46", "#a352cc", "#d44a3a", "#1f9ea8", "#b0902a", "#7a7f87")
_RED, _GREEN, _GREY, _LINE = "#d44a3a", "#299c46", "#6b7280", "#e5e7eb"
_COLUMN, _GAP, _MARGIN = 50, 10, 14
_HEIGHT, _ROW_TITLE, _HEAD = 190, 30, 56
_LEFT, _TOP, _LEGEND_LINE = 52, 32, 14
_LETTER = 5.6


@dataclass(frozen=True)
class Window:
    """The time of a picture, in seconds since the epoch, and the seconds between two samples."""

    start: float
    end: float
    step: float

    def share(self, time_s: float) -> float:
        return (time_s - self.start) / max(self.end - self.start, 1e-9)

    def pieces(self, samples: Samples) -> Iterator[Samples]:
        """Samples without a pause between them: where there are none, nothing is drawn."""
        piece: list[tuple[float, float]] = []
        for sample in samples:
            if piece and sample[0] - piece[-1][0] > 1.5 * self.step:
                yield piece
                piece = []
            piece.append(sample)
        yield piece


@dataclass(frozen=True)
class _Box:
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class _Named:
    name: str
    samples: Samples

    @property
    def last(self) -> float:
        return self.samples[-1][1]


def picture(board: Board, fetch: Fetch, window: Window) -> str:
    """One dashboard; `fetch` gives the series of a query over the window."""
    swaps = [time_s for s in fetch(SWAPS.selected) for time_s, _ in s.samples] if board.swaps else []
    parts: list[str] = []
    y = float(_HEAD)
    for row in board.rows:
        parts.append(_text(_MARGIN, y + 20, row.title, size=14, weight="bold"))
        y += _ROW_TITLE
        for panel, box in _placed(row.panels, y):
            parts += _panel(panel, box, _named(panel, fetch), window, _starts(swaps, window))
            bottom = box.y + box.height
        y = bottom + _GAP
    width = 24 * _COLUMN + 2 * _MARGIN
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y:.0f}" width="{width}" '
        f'font-family="sans-serif"><rect width="100%" height="100%" fill="#f4f5f7"/>',
        _text(_MARGIN, 26, board.title, size=18, weight="bold"),
        _text(_MARGIN, 44, f"{board.description} ({window.end - window.start:.0f} s)", colour=_GREY),
    ]
    return "".join([*head, *parts, "</svg>\n"])


def _placed(panels: Sequence[Panel], y: float) -> Iterator[tuple[Panel, _Box]]:
    """Left to right, as on Grafana's grid."""
    column = 0
    for panel in panels:
        if column + panel.width > 24:
            column, y = 0, y + _HEIGHT + _GAP
        x = _MARGIN + column * _COLUMN
        yield panel, _Box(x, y, panel.width * _COLUMN - _GAP, _HEIGHT)
        column += panel.width


def _named(panel: Panel, fetch: Fetch) -> list[_Named]:
    series = [(query, result) for query in panel.queries for result in fetch(query.selected)]
    return [
        _Named(_legend(query, result.labels), result.samples) for query, result in series if result.samples
    ]


def _legend(query: Query, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda m: labels.get(m[1], ""), query.legend)


def _starts(times: Sequence[float], window: Window) -> list[float]:
    """An increase is seen for as long as its range: the first sample of each stretch."""
    return [piece[0][0] for piece in window.pieces([(time_s, 1.0) for time_s in sorted(set(times))]) if piece]


def _panel(
    panel: Panel, box: _Box, series: Sequence[_Named], window: Window, swaps: Sequence[float]
) -> Iterator[str]:
    yield f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="3" fill="white"/>'
    yield _text(box.x + 10, box.y + 19, panel.title, size=12, weight="bold")
    if not series:
        yield _text(box.x + box.width / 2, box.y + box.height / 2, "no data", colour=_RED, anchor="middle")
    elif panel.kind is Kind.NUMBER:
        yield from _number(panel, box, series)
    elif panel.kind is Kind.STATES:
        yield from _states(box, series, window, swaps)
    else:
        yield from _lines(panel, box, series, window, swaps)


# -- kinds of panels -----------------------------------------------------------------------------------------


def _number(panel: Panel, box: _Box, series: Sequence[_Named]) -> Iterator[str]:
    width = box.width / len(series)
    for place, curve in enumerate(series):
        x = box.x + width * (place + 0.5)
        colour = _RED if _is_bad(panel, curve.last) else _GREEN
        size = 40 if len(series) == 1 else 26
        shown = _shown(curve.last, panel.unit)
        yield _text(x, box.y + box.height / 2 + 18, shown, size=size, colour=colour, anchor="middle")
        if len(series) > 1 or "{{" in panel.queries[0].legend:
            yield _text(x, box.y + box.height - 30, curve.name, colour=_GREY, anchor="middle")


def _is_bad(panel: Panel, value: float) -> bool:
    below, above = panel.bad_below, panel.bad_above
    return (below is not None and value < below) or (above is not None and value > above)


def _states(box: _Box, series: Sequence[_Named], window: Window, swaps: Sequence[float]) -> Iterator[str]:
    """Those that were ever on first, then as many as there is room for."""
    ordered = sorted(series, key=lambda curve: (-max(value for _, value in curve.samples), curve.name))
    ordered = ordered[:10]
    names = max(len(curve.name) for curve in ordered) * _LETTER + 16
    plot = _Box(box.x + names, box.y + _TOP, box.width - names - 12, box.height - _TOP - 24)
    height = min(20.0, plot.height / len(ordered))
    for place, curve in enumerate(ordered):
        y = plot.y + place * height
        yield _text(plot.x - 6, y + height / 2 + 4, curve.name, anchor="end")
        yield _band(plot.x, y, plot.width, height, _LINE)
        for start, end in _stretches(curve.samples, window):
            x, to = plot.x + window.share(start) * plot.width, plot.x + window.share(end) * plot.width
            yield _band(x, y, min(to, plot.x + plot.width) - x, height, COLOURS[0])
    yield from _marks(plot, window, swaps)
    yield from _times(plot, window)


def _band(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y + 2:.1f}" width="{max(width, 1.5):.1f}" height="{height - 4:.1f}" '
        f'fill="{colour}"/>'
    )


def _stretches(samples: Samples, window: Window) -> Iterator[tuple[float, float]]:
    """From when to when the value was above a half."""
    on = [sample for sample in samples if sample[1] > 0.5]
    for piece in window.pieces(on):
        if piece:
            yield piece[0][0], piece[-1][0] + window.step


def _lines(
    panel: Panel, box: _Box, series: Sequence[_Named], window: Window, swaps: Sequence[float]
) -> Iterator[str]:
    legend = list(_legend_lines([curve.name for curve in series], box.width - 20))
    under = 22 + _LEGEND_LINE * len(legend)
    plot = _Box(box.x + _LEFT, box.y + _TOP, box.width - _LEFT - 12, box.height - _TOP - under)
    low, high = _bounds(panel, series)

    def at(time_s: float, value: float) -> str:
        x = plot.x + window.share(time_s) * plot.width
        return f"{x:.1f},{plot.y + (high - min(max(value, low), high)) / (high - low) * plot.height:.1f}"

    for part in range(4):
        value = low + (high - low) * part / 3
        y = plot.y + plot.height * (1 - part / 3)
        yield f'<path d="M{plot.x} {y:.1f}h{plot.width}" stroke="{_LINE}"/>'
        yield _text(plot.x - 6, y + 4, _shown(value, panel.unit), colour=_GREY, anchor="end")
    for limit in (panel.bad_below, panel.bad_above):
        if limit is not None and low <= limit <= high:
            ends = f"{at(window.start, limit)} {at(window.end, limit)}"
            yield f'<polyline points="{ends}" fill="none" stroke="{_RED}" stroke-dasharray="5 4"/>'
    yield from _marks(plot, window, swaps)
    for place, curve in enumerate(series):
        colour = COLOURS[place % len(COLOURS)]
        dashes = ' stroke-dasharray="4 3"' if curve.name in ("limit", "allowed") else ""
        for piece in window.pieces(curve.samples):
            points = " ".join(at(*sample) for sample in piece)
            # A single sample is a dot: a line of no length with round ends.
            yield (
                f'<polyline points="{points} {at(*piece[-1])}" fill="none" stroke="{colour}" '
                f'stroke-width="1.6" stroke-linecap="round"{dashes}/>'
            )
    yield from _times(plot, window)
    yield from _legend_text(legend, box, series)


def _bounds(panel: Panel, series: Sequence[_Named]) -> tuple[float, float]:
    values = [value for curve in series for _, value in curve.samples]
    low = min(values) if panel.minimum is None else panel.minimum
    high = max(values) if panel.maximum is None else panel.maximum
    return (low, high * 1.05 if panel.maximum is None else high) if high > low else (low, low + 1.0)


def _legend_lines(names: Sequence[str], width: float) -> Iterator[list[tuple[int, float]]]:
    """(number of the series, x) line by line; two lines at most."""
    line: list[tuple[int, float]] = []
    x, lines = 0.0, 0
    for number, name in enumerate(names):
        length = 18 + len(name) * _LETTER + 8
        if line and x + length > width:
            yield line
            line, x, lines = [], 0.0, lines + 1
            if lines == 2:
                return
        line.append((number, x))
        x += length
    if line:
        yield line


def _legend_text(
    legend: Sequence[Sequence[tuple[int, float]]], box: _Box, series: Sequence[_Named]
) -> Iterator[str]:
    y = box.y + box.height - _LEGEND_LINE * len(legend) + 5
    for line in legend:
        for number, offset in line:
            x, colour = box.x + 10 + offset, COLOURS[number % len(COLOURS)]
            yield f'<rect x="{x:.1f}" y="{y - 5:.1f}" width="12" height="3" fill="{colour}"/>'
            yield _text(x + 16, y, series[number].name)
        y += _LEGEND_LINE


# -- small parts ---------------------------------------------------------------------------------------------


def _marks(plot: _Box, window: Window, swaps: Sequence[float]) -> Iterator[str]:
    for time_s in swaps:
        x = plot.x + window.share(time_s) * plot.width
        yield f'<path d="M{x:.1f} {plot.y}v{plot.height:.1f}" stroke="#a352cc" stroke-dasharray="2 2"/>'


def _times(plot: _Box, window: Window) -> Iterator[str]:
    y = plot.y + plot.height + 14
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        seconds = share * (window.end - window.start)
        yield _text(plot.x + share * plot.width, y, f"{seconds:.0f} s", colour=_GREY, anchor=anchor)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 10,
    colour: str = "#1f2937",
    anchor: str = "start",
    weight: str = "normal",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{html.escape(text)}</text>'
    )


def _shown(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s" and abs(value) < 1:
        return f"{value * 1000:.3g} ms"
    if unit == "bytes":
        return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))
    suffix = {"s": " s", "suffix:/s": "/s"}.get(unit, "")
    return _scaled(value, 1000, ("", "k", "M")) + suffix


def _scaled(value: float, base: int, names: Sequence[str]) -> str:
    step = 0
    while abs(value) >= base and step < len(names) - 1:
        value, step = value / base, step + 1
    name = names[step]
    return f"{value:.3g}{' ' if len(name) > 1 or name == 'B' else ''}{name}"
