from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.kafka.history import Gap, GapKind, Offsets, Topology, locate
from lte_runtime.types import TopicPartition

TOPOLOGY = Topology("edits", "new", (0, 1))
ZERO, ONE = TopicPartition("new", 0), TopicPartition("new", 1)
OLD = TopicPartition("old", 0)


@pytest.mark.parametrize(
    ("known", "beginning", "end", "start"),
    [
        ({}, (0, 0), (5, 5), (0, 0)),
        ({ZERO: 3, ONE: 5}, (0, 0), (5, 5), (3, 5)),
        ({ZERO: 3}, (0, 0), (5, 5), (3, 0)),  # a partition that was added
        ({ZERO: 3, ONE: 3}, (3, 3), (3, 9), (3, 3)),  # trimmed exactly up to the position
        ({OLD: 99, ZERO: 2, ONE: 0}, (0, 0), (5, 5), (2, 0)),  # an accepted incarnation
    ],
)
def test_reading_goes_on_at_known_positions(
    known: Offsets, beginning: tuple[int, int], end: tuple[int, int], start: tuple[int, int]
) -> None:
    found = locate(known, TOPOLOGY, _both(beginning), _both(end))
    assert found == _both(start)


@pytest.mark.parametrize(
    ("known", "beginning", "end", "kind", "resume_at"),
    [
        ({ZERO: 3, ONE: 1}, (4, 0), (9, 9), GapKind.TRIMMED, (4, 1)),
        ({}, (0, 2), (9, 9), GapKind.TRIMMED, (0, 2)),  # history before the first start
        ({ZERO: 7, ONE: 1}, (0, 0), (5, 5), GapKind.BEYOND_END, (5, 1)),
        ({ZERO: 7, ONE: 1}, (6, 2), (6, 9), GapKind.TRIMMED, (6, 2)),
        ({OLD: 4}, (1, 0), (9, 9), GapKind.RECREATED, (1, 0)),
        ({OLD: 0}, (0, 0), (0, 0), GapKind.RECREATED, (0, 0)),
    ],
)
def test_missing_history_is_a_gap_with_a_place_to_go_on(
    known: Offsets,
    beginning: tuple[int, int],
    end: tuple[int, int],
    kind: GapKind,
    resume_at: tuple[int, int],
) -> None:
    gap = locate(known, TOPOLOGY, _both(beginning), _both(end))
    assert isinstance(gap, Gap)
    assert (gap.kind, gap.resume_at) == (kind, _both(resume_at))
    assert "edits" in gap.message


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.booleans())
def test_nothing_is_skipped_without_a_gap_and_a_gap_can_be_resumed(
    position: int, beginning: int, length: int, seen: bool
) -> None:
    topology = Topology("edits", "new", (0,))
    known = {ZERO: position} if seen else {}
    ends = {ZERO: beginning + length}
    found = locate(known, topology, {ZERO: beginning}, ends)
    if isinstance(found, Gap):
        again = locate(found.resume_at, topology, {ZERO: beginning}, ends)
        assert again == found.resume_at
    else:
        assert found[ZERO] == known.get(ZERO, 0)
        assert beginning <= found[ZERO] <= beginning + length


def _both(pair: tuple[int, int]) -> dict[TopicPartition, int]:
    return {ZERO: pair[0], ONE: pair[1]}
