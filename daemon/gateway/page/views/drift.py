"""Readings of drift beside their limits. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from daemon.gateway.page.views.charts import Point, Sparkline, sparkline
from daemon.gateway.page.views.formats import BAD, GOOD, PLAIN, figure, label, milliseconds
from daemon.rpc.gen.lte.v1 import admin_service_pb2

_THRESHOLD = "threshold"


@dataclass(frozen=True, slots=True)
class ReadingCard:
    """One reading: its newest value, its past, and what its rules say of it."""

    label: str
    value: str
    limit: str
    rules: tuple[str, ...]
    state: str
    tone: str
    chart: Sparkline | None


@dataclass(frozen=True, slots=True)
class DriftView:
    """`held_back` are the blocks; `would_start` tells whether a re-alignment would start now; `unmeasured`
    are the rules without a reading."""

    enabled: bool
    would_start: bool
    reasons: tuple[str, ...]
    held_back: tuple[str, ...]
    cards: tuple[ReadingCard, ...]
    unmeasured: tuple[ReadingCard, ...]
    new_edits: int
    cycles: int
    last_cycle_ms: int | None
    adapter_since_ms: int | None


def drift_view(report: admin_service_pb2.GetDriftResponse) -> DriftView:
    """The report, with the past of each reading."""
    history = _history(report)
    rules: dict[str, list[admin_service_pb2.DriftMargin]] = {}
    for margin in report.margins:
        rules.setdefault(margin.name, []).append(margin)
    names = [*rules, *(name for name in history if name not in rules)]
    cards = [_card(name, rules.get(name, []), history.get(name, ())) for name in names]
    return DriftView(
        enabled=report.enabled,
        would_start=report.would_start,
        reasons=tuple(f"{label(reason.name)}: {reason.detail}" for reason in report.reasons),
        held_back=tuple(block.detail for block in report.blocks),
        cards=tuple(card for card in cards if card.value),
        unmeasured=tuple(card for card in cards if not card.value),
        new_edits=report.new_edits,
        cycles=report.cycles,
        last_cycle_ms=milliseconds(report.last_cycle) if report.HasField("last_cycle") else None,
        adapter_since_ms=milliseconds(report.adapter_since) if report.HasField("adapter_since") else None,
    )


def _history(report: admin_service_pb2.GetDriftResponse) -> Mapping[str, Sequence[Point]]:
    """Points by name, oldest first; the newest alone where the daemon gives no past."""
    history: dict[str, list[Point]] = {}
    for reading in (*report.past, *report.readings):
        points, time_ms = history.setdefault(reading.name, []), milliseconds(reading.time)
        # A mean of nothing says nothing, and the newest of the past is the pooled one of its time.
        if reading.n and (not points or time_ms > points[-1][0]):
            points.append((time_ms, reading.value))
    return history


def _card(
    name: str,
    rules: Sequence[admin_service_pb2.DriftMargin],
    points: Sequence[Point],
) -> ReadingCard:
    limit = next((rule.limit for rule in rules if rule.kind == _THRESHOLD and rule.HasField("limit")), None)
    state, tone = _state(rules)
    return ReadingCard(
        label=label(name),
        value=figure(points[-1][1]) if points else "",
        limit=figure(limit) if limit is not None else "",
        rules=tuple(map(_rule, rules)),
        state=state,
        tone=tone,
        chart=sparkline(points, limit),
    )


def _state(rules: Sequence[admin_service_pb2.DriftMargin]) -> tuple[str, str]:
    if any(rule.reason for rule in rules):
        return "reason", BAD
    if not rules:
        return "no rule", PLAIN
    return ("ok", GOOD) if any(rule.HasField("margin") for rule in rules) else ("learning", PLAIN)


def _rule(rule: admin_service_pb2.DriftMargin) -> str:
    """`threshold 0.8, margin 0.12` or, while the sample is small, how much of it there is."""
    limit = f" {figure(rule.limit)}" if rule.HasField("limit") else ""
    if rule.HasField("margin"):
        return f"{rule.kind}{limit}, margin {figure(rule.margin)}"
    return f"{rule.kind}{limit}, {rule.n:,} of {rule.needed:,} observations"
