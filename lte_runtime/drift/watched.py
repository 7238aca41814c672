"""What the watch on drift remembers over restarts: one frozen value, as JSON in the store. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lte_runtime.drift import monitor
from lte_runtime.drift.monitor import DetectorState
from lte_runtime.names.normalise import key_form

LEARNED_FROM = 200
"""Edits from which relations are learned where an adapter does not tell what it was aligned on."""


@dataclass(frozen=True, slots=True)
class Relations:
    """The relations that count as seen, in key form; the next `to_learn` edits add theirs."""

    seen: frozenset[str] = frozenset()
    to_learn: int = LEARNED_FROM

    def step(self, relations: Sequence[str]) -> tuple[Relations, list[bool]]:
        """The state after edits of these relations in order, and for each later one whether it is unseen."""
        learned = relations[: self.to_learn]
        seen = self.seen | {key_form(relation) for relation in learned}
        unseen = [key_form(relation) not in seen for relation in relations[len(learned) :]]
        return Relations(seen, self.to_learn - len(learned)), unseen


@dataclass(frozen=True, slots=True)
class DriftState:
    """`cursor` is the store's row up to which edits were looked at, `since_row` the row up to which the last
    alignment knew them, `building_row` that of an alignment under way. `adapter` is the hash of the active
    one ("none" without, "" before the first look), active since `adapter_since_ms`. `base` holds the base
    model's own answers by question, of the model `base_model`. `reason_since_ms` is when a reading became a
    reason; None while none is one."""

    drift: DetectorState = field(default_factory=DetectorState)
    cycle: int = 0
    cycle_ms: int = 0
    cursor: int = 0
    since_row: int = 0
    building_row: int | None = None
    adapter: str = ""
    adapter_since_ms: int = 0
    relations: Relations = field(default_factory=Relations)
    base_model: str = ""
    base: Mapping[str, str] = field(default_factory=dict)
    reason_since_ms: int | None = None


def changed(
    state: DriftState, adapter: str, aligned_on: Collection[str] | None, row: int, now_ms: int
) -> DriftState:
    """The state once another adapter serves, at the store's row `row`; `aligned_on` are its relations, None
    where it does not say. Every detector learns its reference anew."""
    if not state.adapter:
        relations = _relations(aligned_on, Relations())
        return replace(state, adapter=adapter, adapter_since_ms=now_ms, relations=relations)
    since = row if state.building_row is None else state.building_row
    return replace(
        state,
        drift=monitor.realigned(state.drift),
        adapter=adapter,
        adapter_since_ms=now_ms,
        reason_since_ms=None,
        since_row=since,
        building_row=None,
        relations=_relations(aligned_on, Relations(state.relations.seen)),
    )


def _relations(aligned_on: Collection[str] | None, otherwise: Relations) -> Relations:
    return otherwise if aligned_on is None else Relations(frozenset(map(key_form, aligned_on)), 0)


def to_json(state: DriftState) -> dict[str, Any]:
    """The state as JSON values."""
    return {
        "drift": monitor.to_json(state.drift),
        "relations": [sorted(state.relations.seen), state.relations.to_learn],
        "base": dict(state.base),
        "reason_since_ms": state.reason_since_ms,
        **{name: getattr(state, name) for name in _PLAIN},
    }


def from_json(value: Mapping[str, Any]) -> DriftState:
    """The state as `to_json` gave it."""
    seen, to_learn = value["relations"]
    return DriftState(
        drift=monitor.from_json(value["drift"]),
        relations=Relations(frozenset(seen), to_learn),
        base=value["base"],
        reason_since_ms=value.get("reason_since_ms"),
        **{name: value[name] for name in _PLAIN},
    )


_PLAIN = (
    "cycle",
    "cycle_ms",
    "cursor",
    "since_row",
    "building_row",
    "adapter",
    "adapter_since_ms",
    "base_model",
)
