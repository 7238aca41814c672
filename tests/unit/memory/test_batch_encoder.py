"""Batches that are written while they are encoded end as those that are encoded before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from event_log import Log
from test_edit_memory import Encoder

from lte_runtime.memory.batch_encoder import BESIDE_FROM
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.types import Edit, Vectors

Opener = Callable[..., EditMemory]


def facts(log: Log, count: int) -> list[Edit]:
    return [log.fact(f"P{n}", subject=f"Firm {n}") for n in range(count)]


def test_large_and_small_batches_make_the_same_state(open_memory: Opener, log: Log) -> None:
    edits = [*facts(log, BESIDE_FROM + 20), log.fact("Later", subject="Firm 3")]
    large, single = open_memory("large"), open_memory("single")
    applied = large.apply(log.batch(*edits))
    for edit in edits:
        single.apply(log.batch(edit))
    assert (len(applied.applied), applied.encoded) == (len(edits), len(edits) - 1)
    assert large.state_hash() == single.state_hash()
    for memory in (large, single):
        assert memory.verify().problems == ()
        (item, *_) = memory.candidates("Who is the boss of Firm 3?", None, namespace="default").items
        assert item.fact.target == "Later"


def test_one_bad_text_in_a_large_batch_stops_no_other(open_memory: Opener, log: Log) -> None:
    memory = open_memory(encoder=Encoder())
    applied = memory.apply(log.batch(*facts(log, BESIDE_FROM), log.fact("x", subject="refuse me")))
    assert (len(applied.applied), applied.rejected) == (BESIDE_FROM, 1)
    assert [row.code for row in memory.quarantined()] == ["encoder_failed"]
    assert memory.verify().problems == ()


class Broken(Encoder):
    broken = True

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        if self.broken and len(texts) > 1:
            raise RuntimeError("no memory")
        return super().encode(texts, query=query)


def test_an_encoder_that_fails_leaves_nothing_behind(open_memory: Opener, log: Log) -> None:
    encoder = Broken()
    memory = open_memory(encoder=encoder)
    batch = log.batch(*facts(log, BESIDE_FROM))
    before = memory.state_hash()
    with pytest.raises(RuntimeError, match="no memory"):
        memory.apply(batch)
    assert (memory.state_hash(), memory.next_offsets(), memory.list_edits()) == (before, {}, [])
    encoder.broken = False
    assert len(memory.apply(batch).applied) == BESIDE_FROM
    assert memory.verify().problems == ()
