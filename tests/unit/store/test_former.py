"""Earlier values of a key, with the time in which each held."""

from __future__ import annotations

from typing import Any

import pytest

from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.facts.keys import fact_key
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.store import former
from ops.lab.scratch import START_MS, apply_events, memory_of

KEY = {"op": "assert", "subject": "Tarn Lock", "relation": "keeper"}
DAY = 86_400_000


def keeper(name: str, **fields: Any) -> dict[str, Any]:
    return KEY | {"id": name.lower(), "target": name, **fields}


def earlier(memory: EditMemory, limit: int = 9, at_ms: int | None = None) -> list[tuple[Any, ...]]:
    """(value, from, until) in milliseconds since the first event; undated facts begin at their event."""
    (fact, *_) = memory.facts_of_subject("Tarn Lock", namespace="default", at_ms=at_ms)
    return [
        (value.fact.target, since_start(value.held_from), since_start(value.held_until))
        for value in memory.former_values(fact, limit, at_ms)
    ]


def since_start(at_ms: int | None) -> int | None:
    return None if at_ms is None else at_ms - START_MS


def test_values_are_listed_newest_first_until_their_successor_began() -> None:
    events = [keeper(name, revision=i) for i, name in enumerate(("Ada", "Bo", "Cy"))]
    with memory_of(events, StubEncoder()) as memory:
        assert earlier(memory) == [("Bo", 1, 2), ("Ada", 0, 1)]
        assert earlier(memory, limit=1) == [("Bo", 1, 2)]
        assert earlier(memory, at_ms=START_MS + 1) == [("Ada", 0, 1)]


def test_the_same_value_said_again_is_one_value() -> None:
    events = [keeper(n, id=str(i)) for i, n in enumerate(("Ada", "Ada", "Bo", "Bo", "Cy", "Cy"))]
    with memory_of(events, StubEncoder()) as memory:
        assert earlier(memory) == [("Bo", 2, 4), ("Ada", 0, 2)]


def test_a_value_that_comes_back_leaves_the_other_one_between() -> None:
    events = [keeper(n, id=str(i)) for i, n in enumerate(("Ada", "Bo", "Ada"))]
    with memory_of(events, StubEncoder()) as memory:
        assert earlier(memory) == [("Bo", 1, 2), ("Ada", 0, 1)]


def test_a_declared_end_comes_before_the_successor() -> None:
    events = [
        keeper("Ada", valid_from="2020-01-01", valid_until="2020-06-01"),
        keeper("Bo", valid_from="2021-01-01"),
    ]
    with memory_of(events, StubEncoder()) as memory:
        assert earlier(memory) == [("Ada", (18262 - 10957) * DAY, (18414 - 10957) * DAY)]


def test_what_was_retracted_or_erased_is_no_history() -> None:
    with memory_of([keeper("Ada"), keeper("Bo"), keeper("Cy")], StubEncoder()) as memory:
        apply_events(memory, [{"op": "retract", "id": "r", "retracts": "bo"}])
        assert [value for value, *_ in earlier(memory)] == ["Ada"]
        memory.erase(fact_key("default", "Tarn Lock", "keeper"))
        assert memory.facts_of_subject("Tarn Lock", namespace="default") == ()


def test_the_loser_of_a_conflict_was_never_the_value() -> None:
    events = [keeper("Ada", revision=1), keeper("Bo", revision=2), keeper("Cy", revision=2)]
    with memory_of(events, StubEncoder()) as memory:
        assert [value for value, *_ in earlier(memory)] == ["Ada"]


def test_members_of_a_set_are_current_and_what_the_set_replaced_is_not() -> None:
    events = [keeper("Ada")] + [keeper(n, cardinality="many") for n in ("Bo", "Cy")]
    with memory_of(events, StubEncoder()) as memory:
        assert earlier(memory) == [("Ada", 0, 1)]


def test_a_set_that_one_value_replaced_ends_as_a_whole() -> None:
    events = [keeper(n, cardinality="many") for n in ("Ada", "Bo")] + [keeper("Cy")]
    with memory_of(events, StubEncoder()) as memory:
        assert earlier(memory) == [("Bo", 1, 2), ("Ada", 0, 2)]


def test_no_more_rows_are_read_than_the_limit_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(former, "MOST_ROWS", 4)
    events = [keeper("Ada")] + [keeper("Bo", id=f"b{i}") for i in range(4)]
    with memory_of(events, StubEncoder()) as memory:
        assert earlier(memory) == []


def test_what_arrived_after_the_current_values_were_read_is_no_earlier_value() -> None:
    rows = [
        former.Standing(rank, rank, rank, None, None, 0, name, 0, None)
        for rank, name in ((2, "cy"), (1, "bo"), (0, "ada"))
    ]
    superseded = former.superseded_runs(former.runs(rows), {"bo"}, at_ms=9)
    assert [(run.row.target, until) for run, _, until in superseded] == [("ada", 1)]
