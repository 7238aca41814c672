"""What the page shows of the daemon's messages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from daemon.gateway.page.views import formats
from daemon.gateway.page.views.adapters import MOST_ADAPTERS, adapters_view, run_view, verdict_view
from daemon.gateway.page.views.answer import answer_view
from daemon.gateway.page.views.charts import HEIGHT, WIDTH, segments, sparkline
from daemon.gateway.page.views.drift import drift_view
from daemon.gateway.page.views.facts import fact_view, why_not_view
from daemon.gateway.page.views.ingest import ingest_view
from daemon.rpc.gen.lte.v1 import admin_service_pb2 as admin
from daemon.rpc.gen.lte.v1 import answer_service_pb2, common_pb2, edit_service_pb2
from lte_runtime.align.promotion import CANDIDATE, INCUMBENT, NONE, judge

NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "just now"),
        (12, "12 s ago"),
        (60, "1 min ago"),
        (7_300, "2 h ago"),
        (200_000, "2 d ago"),
        (-90, "in 1 min"),
    ],
)
def test_times_are_told_in_their_largest_unit(seconds: float, text: str) -> None:
    assert formats.ago(NOW_MS - round(seconds * 1000), NOW_MS) == text


def test_figures_are_short() -> None:
    assert [formats.figure(value) for value in (1.0, 0.16783, 10_000.0)] == ["1", "0.1678", "10,000"]
    assert [formats.size(number) for number in (12, 1_211_258)] == ["12 B", "1.2 MB"]
    assert formats.label("edits_since_alignment") == "Edits since alignment"


def test_a_sparkline_holds_all_values_and_the_limit() -> None:
    chart = sparkline([(0, 0.9), (10, 0.95), (40, 0.7)], limit=0.8)
    assert chart is not None
    assert chart.limit_y is not None
    places = [tuple(map(float, pair.split(","))) for pair in chart.line.split()]
    assert [left for left, _ in places] == sorted(left for left, _ in places)
    assert all(0 <= left <= WIDTH and 0 <= top <= HEIGHT for left, top in places)
    # Times are to scale, and more is higher.
    assert places[1][0] - places[0][0] == pytest.approx((places[2][0] - places[0][0]) / 4, abs=0.2)
    assert places[1][1] < places[0][1] < chart.limit_y < places[2][1]
    assert (chart.end, chart.count, chart.low, chart.high) == (places[2], 3, 0.7, 0.95)
    assert chart.seconds == 0.04


def test_a_sparkline_needs_a_point() -> None:
    assert sparkline([]) is None
    chart = sparkline([(5, 1.0)])
    assert chart is not None
    assert chart.limit_y is None
    assert chart.end == (157.0, 18.0)


def test_segments_fill_their_bar() -> None:
    bar = segments([("encode", 1.0), ("model", 3.0)])
    assert [(part.start, part.width) for part in bar] == [(0.0, 25.0), (25.0, 75.0)]
    assert segments([("encode", 0.0)]) == ()


def test_stages_of_an_answer_add_up_to_its_time() -> None:
    timings = {"model": 60.0, "encode": 10.0, "tokenise": 5.0, "total": 80.0}
    view = answer_view(answer_service_pb2.AnswerResponse(timings_ms=timings))
    assert [stage.name for stage in view.stages] == ["encode", "model", "tokenise", "other"]
    assert sum(stage.amount for stage in view.stages) == view.total_ms == 80.0


def test_candidates_that_are_cited_are_marked() -> None:
    answer = answer_service_pb2.AnswerResponse(
        scope=common_pb2.SCOPE_EDITED, citations=[common_pb2.Citation(edit_id="a")], finish="length"
    )
    view = answer_view(answer, [common_pb2.Candidate(edit_id="a"), common_pb2.Candidate(edit_id="b")])
    assert [candidate.cited for candidate in view.candidates] == [True, False]
    assert (view.edited, view.cut, view.adapter) == (True, True, None)


def edit(**fields: Any) -> edit_service_pb2.EditRecord:
    return edit_service_pb2.EditRecord(id="e", subject="Acme", relation="owner", **fields)


def test_a_retraction_is_shown_as_one() -> None:
    fact = fact_view(edit(op=common_pb2.OP_RETRACT, state="retraction"))
    assert (fact.withdraws, fact.current, fact.value, fact.tone) == (True, False, "", formats.BAD)
    assert (fact.key, fact.revision, fact.valid_from_ms, fact.place) == (None, None, None, "")


def test_why_not_names_what_stands_instead() -> None:
    reply = edit_service_pb2.WhyNotResponse(reason="superseded", winner_id="w")
    view = why_not_view(reply, edit(target="Ann Lee", state="current"))
    assert view.instead is not None
    assert (view.state, view.instead.value, view.instead.current) == ("superseded", "Ann Lee", True)
    assert why_not_view(edit_service_pb2.WhyNotResponse(reason="new_in_a_later_version"), None).reason == ""


def status(*lags: int, **fields: Any) -> admin.GetStatusResponse:
    partitions = [
        admin.PartitionStatus(partition=number, next_offset=50, end_offset=50 + max(lag, 0), lag=lag)
        for number, lag in enumerate(lags)
    ]
    return admin.GetStatusResponse(ingest=admin.IngestStatus(partitions=partitions), **fields)


def test_a_lag_that_nobody_knows_is_no_number() -> None:
    assert ingest_view(status(3, 4)).lag == 7
    view = ingest_view(status(3, -1))
    assert view.lag is None
    assert [partition.lag for partition in view.partitions] == [3, None]


def test_a_stale_daemon_is_not_shown_as_well() -> None:
    assert ingest_view(status(state="READY")).tone == formats.GOOD
    assert ingest_view(status(state="READY", stale=True)).tone == formats.WARN
    assert ingest_view(status(state="GAP")).advice


def margin(name: str, kind: str = "threshold", **fields: Any) -> admin.DriftMargin:
    return admin.DriftMargin(name=name, kind=kind, needed=256, **fields)


def reading(name: str, value: float, second: int, n: int = 16) -> admin.DriftReading:
    return admin.DriftReading(name=name, value=value, n=n, time=Timestamp(seconds=second))


def test_a_daemon_that_tells_no_past_shows_its_newest_readings() -> None:
    report = admin.GetDriftResponse(enabled=True, readings=[reading("alias", 0.5, 10)])
    cards = drift_view(report).cards
    assert [(card.value, card.chart and card.chart.count) for card in cards] == [("0.5", 1)]


def test_readings_are_shown_with_all_their_rules() -> None:
    report = admin.GetDriftResponse(
        enabled=True,
        margins=[
            margin("edit_success", limit=0.8, value=0.75, margin=-0.05, n=256, reason=True),
            margin("edit_success", "change", n=64),
            margin("alias", "change", n=0),
        ],
        reasons=[admin.DriftReason(kind="threshold", name="edit_success", detail="0.75 over 256")],
        past=[reading("edit_success", 0.9, 0), reading("edit_success", 0.75, 10)],
        readings=[reading("edit_success", 0.5, 10), reading("alias", 0.0, 10, n=0)],
    )
    view = drift_view(report)
    assert [card.label for card in view.cards] == ["Edit success"]
    assert [card.label for card in view.unmeasured] == ["Alias"]
    card = view.cards[0]
    assert (card.value, card.limit, card.state, card.tone) == ("0.75", "0.8", "reason", formats.BAD)
    assert card.rules == ("threshold 0.8, margin -0.05", "change, 64 of 256 observations")
    assert card.chart is not None
    assert (card.chart.count, card.chart.seconds) == (2, 10.0)
    assert view.reasons == ("Edit success: 0.75 over 256",)


def verdict_json() -> str:
    """A verdict as the promotion gate gives it."""
    kinds = {
        f"{kind}-{n}": kind for kind in ("edit_success", "locality", "general", "safety") for n in range(40)
    }
    right = dict.fromkeys(kinds, 1)
    wrong = {name: int(kind != "edit_success") for name, kind in kinds.items()}
    verdict = judge({CANDIDATE: right, INCUMBENT: wrong, NONE: wrong}, kinds, incumbent=True)
    return json.dumps(verdict.to_json())


def test_a_verdict_compares_candidate_incumbent_and_none() -> None:
    view = verdict_view(verdict_json())
    assert view is not None
    assert (view.outcome, view.tone, view.arms) == ("promoted", formats.GOOD, (CANDIDATE, INCUMBENT, NONE))
    shares = {row.kind: row.shares for row in view.scores}
    assert shares["Edit success"] == (1.0, 0.0, 0.0)
    assert all(row.ok for row in view.comparisons)
    assert {row.probes for row in view.scores} == {40}


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"outcome": "promote", "scores": 3}'])
def test_what_is_no_verdict_is_left_out(text: str) -> None:
    assert verdict_view(text) is None


def test_adapters_say_whether_they_may_serve() -> None:
    tainted = [admin.TaintedEdit(edit_id="e", why="retracted")]
    listing = admin.ListAdaptersResponse(
        adapters=[
            admin.AdapterInfo(id="b", problem="a file is missing", added=Timestamp(seconds=2)),
            admin.AdapterInfo(id="c", added=Timestamp(seconds=1)),
            admin.AdapterInfo(id="a", serving=True, tainted=tainted),
        ]
    )
    view = adapters_view(listing)
    assert [row.state for row in view.adapters] == ["serving, tainted", "damaged", "ready"]
    assert (view.serving, view.further) == ("", 0)


def test_the_adapter_that_serves_is_shown_however_many_there_are() -> None:
    infos = [
        admin.AdapterInfo(id=str(number), serving=number == 0, added=Timestamp(seconds=number))
        for number in range(MOST_ADAPTERS + 3)
    ]
    view = adapters_view(admin.ListAdaptersResponse(adapters=infos))
    assert [row.id for row in view.adapters[:2]] == ["0", str(MOST_ADAPTERS + 2)]
    assert (len(view.adapters), view.further) == (MOST_ADAPTERS, 3)


def test_a_run_tells_how_far_it_is() -> None:
    progress = admin.RealignmentProgress(phase="training", step=5, total=40)
    run = run_view(admin.Realignment(id="run-1", state="training", progress=progress))
    assert (run.running, run.percent, run.remaining_s) == (True, 12.5, None)
    ended = run_view(admin.Realignment(id="run-1", state="rejected", verdict_json=verdict_json()))
    assert (ended.running, ended.percent) == (False, None)
    assert ended.verdict is not None
