"""Geometry of the small pictures, in the units of their view boxes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 160.0, 36.0
# Room for the line's width and for the dot on the newest point.
_INSET = 3.0

Point = tuple[int, float]
"""Time in milliseconds since the epoch, and the value."""


@dataclass(frozen=True, slots=True)
class Sparkline:
    """`line` is the `points` of a polyline; `limit_y` where the limit is drawn, `end` the newest point.
    `seconds` lie between the first point and the newest."""

    line: str
    end: tuple[float, float]
    limit_y: float | None
    count: int
    seconds: float
    low: float
    high: float


def sparkline(points: Sequence[Point], limit: float | None = None) -> Sparkline | None:
    """The values over their times, scaled so that all of them and the limit are seen; None without points."""
    if not points:
        return None
    values = [value for _, value in points]
    bounds = values if limit is None else [*values, limit]
    low, high = min(bounds), max(bounds)
    begin, end = points[0][0], points[-1][0]

    def x(time_ms: int) -> float:
        share = (time_ms - begin) / (end - begin) if end > begin else 1.0
        return round(_INSET + share * (WIDTH - 2 * _INSET), 1)

    def y(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return round(HEIGHT - _INSET - share * (HEIGHT - 2 * _INSET), 1)

    places = [(x(time_ms), y(value)) for time_ms, value in points]
    return Sparkline(
        line=" ".join(f"{left:g},{top:g}" for left, top in places),
        end=places[-1],
        limit_y=None if limit is None else y(limit),
        count=len(points),
        seconds=(end - begin) / 1000,
        low=min(values),
        high=max(values),
    )


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a bar of 100 units: where it begins and how wide it is."""

    name: str
    amount: float
    start: float
    width: float


def segments(parts: Sequence[tuple[str, float]]) -> tuple[Segment, ...]:
    """The parts of a bar, side by side; none where they add up to nothing."""
    total = sum(amount for _, amount in parts)
    if total <= 0:
        return ()
    placed, start = [], 0.0
    for name, amount in parts:
        width = 100 * amount / total
        placed.append(Segment(name, amount, round(start, 2), round(width, 2)))
        start += width
    return tuple(placed)
