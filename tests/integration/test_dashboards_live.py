"""A real Prometheus scrapes a daemon under a short load: every query of the dashboards answers, with data."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest
from real_parts import missing_part

from ops.kafka.broker import Broker, free_ports
from ops.monitoring.load import SETTINGS, Load
from ops.monitoring.panels import BOARDS, SWAPS, Board
from ops.monitoring.render import Window, picture
from ops.monitoring.server import MonitoringError, Prometheus, Series, installed
from ops.stack import Stack

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1800)]
SCRAPE_S = 1.0


class Scraped:
    """What was scraped of the load."""

    def __init__(self, prometheus: Prometheus, window: Window) -> None:
        self.prometheus, self.window = prometheus, window

    def points(self, query: str) -> int:
        return sum(len(series.samples) for series in self.fetch(query))

    def fetch(self, query: str) -> list[Series]:
        return self.prometheus.series(query, self.window.start, self.window.end, SCRAPE_S)


@pytest.fixture(scope="module")
def scraped(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    if installed() is None:
        missing_part("Prometheus is not installed: apt-get install prometheus")
    place, topic = tmp_path_factory.mktemp("monitoring"), f"load-{uuid.uuid4().hex[:8]}"
    with Stack(place / "lte", settings=SETTINGS, broker=broker, topic=topic) as stack:
        stack.start_broker()
        stack.start_daemon()
        stack.start_gateway()
        (port,) = free_ports(1)
        targets = {"target": stack.addresses.metrics, "gateway": stack.addresses.gateway_metrics}
        with Prometheus(place / "prometheus", **targets, port=port, scrape_s=SCRAPE_S) as prometheus:
            start = time.time()
            Load(stack).run(note=print)
            time.sleep(3 * SCRAPE_S)
            yield Scraped(prometheus, Window(start, time.time(), SCRAPE_S))


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_query_answers_with_data(scraped: Scraped, board: Board) -> None:
    empty = [
        f"{panel.title}: {query.selected}"
        for panel in board.panels
        for query in panel.queries
        if not scraped.points(query.selected)
    ]
    assert empty == []


def test_what_was_provoked_is_seen(scraped: Scraped) -> None:
    assert scraped.points(SWAPS.selected)
    for seen in (
        'lte_state{state="GAP"} == 1',
        'lte_answers_total{code="RESOURCE_EXHAUSTED"} > 0',
        "lte_adapter_tainted_edits > 0",
        "lte_queue_depth > 0",
        'lte_realign_state{state="training"} == 1',
        'lte_realign_runs_total{state="done",trigger="operator"} == 1',
        "lte_ingest_unproven_positions_total > 0",
        'ALERTS{alertname="LteGap",alertstate="firing"}',
    ):
        assert scraped.points(seen), seen


def test_a_wrong_query_is_noticed(scraped: Scraped) -> None:
    assert scraped.points("lte_no_such_metric") == 0
    with pytest.raises(MonitoringError, match="parse error"):
        scraped.points("sum(")


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_picture_shows_every_panel(scraped: Scraped, board: Board) -> None:
    svg = picture(board, scraped.fetch, scraped.window)
    assert "no data" not in svg
    assert svg.count('rx="3" fill="white"') == len(list(board.panels))
