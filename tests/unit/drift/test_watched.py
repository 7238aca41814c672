"""What the watch remembers: relations that are learned or told, and what another adapter makes of it."""

from __future__ import annotations

from dataclasses import replace

from lte_runtime.drift import readings as r
from lte_runtime.drift.monitor import DetectorRules, observe
from lte_runtime.drift.readings import Reading
from lte_runtime.drift.watched import DriftState, Relations, changed, from_json, to_json

DRIFT = observe(DriftState().drift, [Reading(r.EDIT_SUCCESS, 0.5, 512, 1)], DetectorRules())


def test_the_first_edits_teach_the_relations_and_later_ones_are_compared() -> None:
    known, unseen = Relations(to_learn=3).step(["Owner", "captain"])
    assert (unseen, known.to_learn) == ([], 1)
    known, unseen = known.step(["fee", "OWNER", "mayor"])
    assert unseen == [False, True]
    assert known.seen == {"owner", "captain", "fee"}


def test_the_first_adapter_keeps_what_was_read_before_it() -> None:
    state = changed(DriftState(drift=DRIFT), "a", ["Owner"], row=9, now_ms=5)
    assert (state.drift, state.since_row, state.adapter_since_ms) == (DRIFT, 0, 5)
    assert state.relations == Relations(frozenset({"owner"}), 0)


def test_another_adapter_knows_what_there_was_when_it_was_built() -> None:
    before = DriftState(
        drift=DRIFT, adapter="a", building_row=7, relations=Relations(frozenset({"owner"}), 0)
    )
    state = changed(before, "b", None, row=9, now_ms=5)
    assert (state.since_row, state.building_row) == (7, None)
    assert not state.drift.levels
    assert state.relations.seen == {"owner"}
    assert state.relations.to_learn > 0, "it does not say what it was aligned on"
    assert changed(replace(before, building_row=None), "b", [], row=9, now_ms=5).since_row == 9


def test_json_gives_it_back() -> None:
    state = DriftState(DRIFT, 3, 4, 5, 1, 2, "a", 6, Relations(frozenset({"x"}), 2), "m", {"q": "a"})
    assert from_json(to_json(state)) == state
