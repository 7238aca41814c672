"""Adapters, the verdicts that let them in or kept them out, and runs of re-alignment. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daemon.gateway.page.views.formats import BAD, GOOD, PLAIN, WARN, label, milliseconds
from daemon.rpc.gen.lte.v1 import admin_service_pb2

_ARMS = ("candidate", "incumbent", "none")
_ENDED = {"done": GOOD, "rejected": WARN, "failed": BAD, "cancelled": PLAIN}
_OUTCOMES = {
    "promote": ("promoted", GOOD),
    "reject": ("kept out", WARN),
    "none": ("no adapter is better than either", WARN),
}
# Adapters and moves of the pointer that the page shows.
MOST_ADAPTERS = 20
MOST_MOVES = 8


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """Shares of right answers of one kind of probes; None where an arm has none."""

    kind: str
    probes: int | None
    shares: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """A difference of shares: its lower end must stay above `least`."""

    name: str
    n: int
    mean: float
    lower: float
    least: float
    ok: bool


@dataclass(frozen=True, slots=True)
class VerdictView:
    """Candidate beside incumbent and no adapter; `arms` names the columns of `scores`."""

    outcome: str
    tone: str
    reasons: tuple[str, ...]
    arms: tuple[str, ...]
    scores: tuple[ScoreRow, ...]
    comparisons: tuple[ComparisonRow, ...]


def verdict_view(text: str) -> VerdictView | None:
    """The promotion gate's word from its JSON; None for an adapter that was added without a comparison."""
    try:
        verdict = json.loads(text) if text else {}
        return _verdict(verdict) if isinstance(verdict, dict) and "outcome" in verdict else None
    except (ValueError, TypeError, KeyError, AttributeError):
        # Verdicts of another version may have another form; the command line shows them as they are.
        return None


def _verdict(verdict: Mapping[str, Any]) -> VerdictView:
    outcome, tone = _OUTCOMES.get(verdict["outcome"], (str(verdict["outcome"]), PLAIN))
    scores, probes = verdict.get("scores", {}), verdict.get("probes", {})
    arms = tuple(arm for arm in _ARMS if arm in scores)
    kinds = sorted({kind for shares in scores.values() for kind in shares})
    return VerdictView(
        outcome=outcome,
        tone=tone,
        reasons=tuple(map(str, verdict.get("reasons", ()))),
        arms=arms,
        scores=tuple(
            ScoreRow(label(kind), probes.get(kind), tuple(scores[arm].get(kind) for arm in arms))
            for kind in kinds
        ),
        comparisons=tuple(
            ComparisonRow(label(row["name"]), row["n"], row["mean"], row["lower"], row["least"], row["ok"])
            for row in verdict.get("comparisons", ())
        ),
    )


@dataclass(frozen=True, slots=True)
class AdapterRow:
    """An adapter of the registry or of the settings, and whether it may be used."""

    id: str
    sha256: str
    origin: str
    added_ms: int | None
    trained_edits: int
    tainted: int
    problem: str
    serving: bool
    state: str
    tone: str
    verdict: VerdictView | None


@dataclass(frozen=True, slots=True)
class MoveRow:
    """One move of the pointer."""

    adapter: str
    reason: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class AdaptersView:
    """`serving` is empty where the base model answers alone; `further` adapters are not shown."""

    serving: str
    adapters: tuple[AdapterRow, ...]
    further: int
    moves: tuple[MoveRow, ...]


def adapters_view(listing: admin_service_pb2.ListAdaptersResponse) -> AdaptersView:
    """The adapter that serves and the newest others, and the newest moves of the pointer."""
    newest = sorted(map(_adapter, listing.adapters), key=lambda row: (not row.serving, -(row.added_ms or 0)))
    return AdaptersView(
        serving=listing.serving.id if listing.HasField("serving") else "",
        adapters=tuple(newest[:MOST_ADAPTERS]),
        further=len(newest[MOST_ADAPTERS:]),
        moves=tuple(
            MoveRow(move.adapter, move.reason, milliseconds(move.time))
            for move in listing.history[:MOST_MOVES]
        ),
    )


def _adapter(info: admin_service_pb2.AdapterInfo) -> AdapterRow:
    state, tone = _adapter_state(info)
    return AdapterRow(
        id=info.id,
        sha256=info.sha256,
        origin=info.origin,
        added_ms=milliseconds(info.added) if info.HasField("added") else None,
        trained_edits=info.trained_edits,
        tainted=len(info.tainted),
        problem=info.problem,
        serving=info.serving,
        state=state,
        tone=tone,
        verdict=verdict_view(info.verdict),
    )


def _adapter_state(info: admin_service_pb2.AdapterInfo) -> tuple[str, str]:
    if info.problem:
        return "damaged", BAD
    if info.serving:
        return ("serving, tainted", WARN) if info.tainted else ("serving", GOOD)
    return ("tainted", WARN) if info.tainted else ("ready", PLAIN)


@dataclass(frozen=True, slots=True)
class RunView:
    """A run of re-alignment; `percent` of its phase, None where its length is unknown."""

    id: str
    state: str
    tone: str
    running: bool
    trigger: str
    reasons: tuple[str, ...]
    created_ms: int
    adapter: str
    facts: int
    rows: int
    message: str
    phase: str
    percent: float | None
    step: int
    total: int
    remaining_s: float | None
    verdict: VerdictView | None


def run_view(run: admin_service_pb2.Realignment) -> RunView:
    """What the page shows of a run."""
    progress = run.progress
    return RunView(
        id=run.id,
        state=run.state,
        tone=_ENDED.get(run.state, WARN),
        running=run.state not in _ENDED,
        trigger=run.trigger,
        reasons=tuple(run.reasons),
        created_ms=milliseconds(run.created),
        adapter=run.adapter,
        facts=run.facts,
        rows=run.rows,
        message=run.message,
        phase=progress.phase,
        percent=100.0 * progress.step / progress.total if progress.total > 0 else None,
        step=progress.step,
        total=progress.total,
        remaining_s=progress.remaining_s if progress.HasField("remaining_s") else None,
        verdict=verdict_view(run.verdict_json),
    )
