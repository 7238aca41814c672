"""Values that readings of drift had while somebody looked: the daemon tells the newest one alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from daemon.gateway.page.views.charts import Point
from daemon.gateway.page.views.formats import milliseconds
from daemon.rpc.gen.lte.v1 import admin_service_pb2

# Points of a line that is 160 units wide, and names, of which the daemon has 14.
MOST_POINTS = 120
MOST_NAMES = 64


class ReadingHistory:
    """Bounded; lost when the gateway ends. Not thread-safe: one event loop uses it."""

    def __init__(self) -> None:
        self._points: dict[str, deque[Point]] = {}

    def note(self, report: admin_service_pb2.GetDriftResponse) -> Mapping[str, Sequence[Point]]:
        """Take up the readings that are new; returns the points of every name, oldest first."""
        for reading in report.readings:
            if not reading.n or (reading.name not in self._points and len(self._points) >= MOST_NAMES):
                continue  # a mean of nothing says nothing
            points = self._points.setdefault(reading.name, deque(maxlen=MOST_POINTS))
            time_ms = milliseconds(reading.time)
            if not points or time_ms > points[-1][0]:
                points.append((time_ms, reading.value))
        return {name: tuple(points) for name, points in self._points.items()}
