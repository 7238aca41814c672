"""A log that lost its end: new records on used offsets count, and what was lost is kept or withdrawn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from event_log import Log

from lte_runtime.errors import NotFound
from lte_runtime.facts.events import (
    EventLimits,
    decode,
    fact_key,
    original_position_header,
    to_json,
)
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.types import Batch, Position, RawRecord, Rejected, TopicPartition

Opener = Callable[..., EditMemory]
PLACE = TopicPartition("T", 0)


def read(memory: EditMemory, *records: RawRecord) -> tuple[str, ...]:
    """Records as ingest brings them in: placed in their log, decoded, applied."""
    placed = memory.placed(records)
    edits = tuple(decode(record, EventLimits(), 0) for record in placed)
    return memory.apply(Batch(edits, (), {PLACE: placed[-1].position.offset + 1})).applied


def price(log: Log, subject: str, target: str, offset: int, **fields: object) -> RawRecord:
    value = {"subject": subject, "relation": "price", "target": target, **fields}
    return log.record(to_json(value), offset=offset)


def current(memory: EditMemory, subject: str) -> list[str]:
    return [fact.target for fact in memory.facts_of_subject(subject, namespace="default")]


@pytest.fixture
def memory(open_memory: Opener, log: Log) -> EditMemory:
    """Eight records were read; the log is cut back to three."""
    opened = open_memory()
    read(opened, *(price(log, f"Lamp {n}", f"{n} EUR", n) for n in range(8)))
    return opened


@pytest.mark.parametrize("withdraw", [False, True], ids=["kept", "withdrawn"])
def test_new_records_on_used_offsets_are_no_duplicates(memory: EditMemory, log: Log, withdraw: bool) -> None:
    memory.accept_truncation({PLACE: 3}, withdraw=withdraw)
    assert memory.next_offsets() == memory.watermarks() == {PLACE: 3}
    new = read(memory, *(price(log, f"Chair {n}", f"{n} EUR", n) for n in range(3, 8)))
    assert new == tuple(f"T:0:{n}~1" for n in range(3, 8))
    assert [current(memory, f"Chair {n}") for n in range(3, 8)] == [[f"{n} EUR"] for n in range(3, 8)]
    assert [current(memory, f"Lamp {n}") for n in range(3)] == [[f"{n} EUR"] for n in range(3)]
    lost = [[] if withdraw else [f"{n} EUR"] for n in range(3, 8)]
    assert [current(memory, f"Lamp {n}") for n in range(3, 8)] == lost
    assert memory.next_offsets() == {PLACE: 8}
    assert memory.verify().ok
    assert read(memory, price(log, "Chair 3", "3 EUR", 3)) == ()


def test_lost_edits_are_listed_before_anything_happens(memory: EditMemory) -> None:
    lost = memory.lost_by({PLACE: 3}, limit=2)
    assert ([edit.id for edit in lost.lost], lost.lost_count, lost.withdrawn) == (
        ["T:0:3", "T:0:4"],
        5,
        False,
    )
    assert memory.next_offsets() == {PLACE: 8}
    accepted = memory.accept_truncation({PLACE: 3}, withdraw=True)
    assert ([edit.target for edit in accepted.lost], accepted.withdrawn) == (
        [f"{n} EUR" for n in range(3, 8)],
        True,
    )
    with pytest.raises(NotFound):
        memory.get_edit("T:0:3")


def test_an_edit_that_stands_elsewhere_too_is_not_lost(memory: EditMemory, log: Log) -> None:
    again = price(log, "Desk", "90 EUR", 8, id="desk")
    read(memory, again)
    read(memory, price(log, "Desk", "90 EUR", 9, id="desk"))
    assert "desk" not in [edit.id for edit in memory.lost_by({PLACE: 9}).lost]
    assert "desk" in [edit.id for edit in memory.lost_by({PLACE: 8}).lost]


def test_a_lost_retraction_is_undone_when_it_is_withdrawn(memory: EditMemory, log: Log) -> None:
    retraction = log.record(to_json({"op": "retract", "id": "T:0:1"}), offset=8)
    read(memory, retraction)
    assert current(memory, "Lamp 1") == []
    memory.accept_truncation({PLACE: 8}, withdraw=True)
    assert current(memory, "Lamp 1") == ["1 EUR"]
    assert memory.verify().ok


def test_a_lost_update_gives_way_to_what_was_before(memory: EditMemory, log: Log) -> None:
    read(memory, price(log, "Lamp 0", "99 EUR", 8))
    memory.accept_truncation({PLACE: 8}, withdraw=True)
    assert current(memory, "Lamp 0") == ["0 EUR"]


def test_a_new_record_outranks_a_kept_lost_one_with_a_higher_offset(memory: EditMemory, log: Log) -> None:
    read(memory, price(log, "Lamp 0", "lost", 8))
    memory.accept_truncation({PLACE: 4}, withdraw=False)
    read(memory, price(log, "Lamp 0", "new", 5))
    assert current(memory, "Lamp 0") == ["new"]


def test_the_same_event_published_again_is_taken_again(memory: EditMemory, log: Log) -> None:
    read(memory, price(log, "Desk", "90 EUR", 8, id="desk"))
    memory.accept_truncation({PLACE: 8}, withdraw=True)
    assert current(memory, "Desk") == []
    assert read(memory, price(log, "Desk", "90 EUR", 8, id="desk")) == ("desk",)
    assert current(memory, "Desk") == ["90 EUR"]


def test_refused_records_on_used_offsets_are_kept_beside_each_other(memory: EditMemory, log: Log) -> None:
    def refuse(value: bytes) -> None:
        (record,) = memory.placed([log.record(value, offset=8)])
        memory.apply(Batch((), (Rejected(record, "not_json", "no"),), {PLACE: 9}))

    refuse(b"first")
    memory.accept_truncation({PLACE: 8}, withdraw=False)
    refuse(b"second")
    rows = memory.quarantined()
    assert [(row.record.value, row.record.position.log) for row in rows] == [(b"first", 0), (b"second", 1)]


def test_a_second_cut_and_a_restart(memory: EditMemory, log: Log, open_memory: Opener) -> None:
    memory.accept_truncation({PLACE: 5}, withdraw=False)
    read(memory, price(log, "Chair 5", "5 EUR", 5), price(log, "Chair 6", "6 EUR", 6))
    memory.accept_truncation({PLACE: 6}, withdraw=False)
    memory.close()
    again = open_memory()
    assert read(again, price(log, "Table 6", "6 EUR", 6)) == ("T:0:6~2",)
    assert [current(again, name) for name in ("Chair 5", "Chair 6", "Table 6")] == [
        ["5 EUR"],
        ["6 EUR"],
        ["6 EUR"],
    ]
    assert again.verify().ok


def test_a_dead_letter_that_is_copied_back_finds_its_place_in_a_cut_log(memory: EditMemory, log: Log) -> None:
    memory.accept_truncation({PLACE: 3}, withdraw=False)
    header = original_position_header(Position("T", 0, 5), log.record(None, offset=5).timestamp_ms)
    copied = log.record(
        to_json({"subject": "Lamp 5", "relation": "price", "target": "5 EUR"}), headers=(header,), offset=20
    )
    assert read(memory, copied) == ()
    assert current(memory, "Lamp 5") == ["5 EUR"]


def test_read_your_writes_waits_for_the_new_log(memory: EditMemory, log: Log) -> None:
    memory.accept_truncation({PLACE: 3}, withdraw=False)
    assert not memory.wait_for({PLACE: 5}, 0.01)
    read(memory, price(log, "Chair 3", "3 EUR", 3), price(log, "Chair 4", "4 EUR", 4))
    assert memory.wait_for({PLACE: 5}, 0.01)


def test_history_tells_the_key_of_a_withdrawn_edit_as_unknown(memory: EditMemory) -> None:
    memory.accept_truncation({PLACE: 3}, withdraw=True)
    assert memory.history(fact_key("default", "Lamp 3", "price")) == []


def test_a_lost_retraction_of_an_erased_key_makes_no_key_without_a_name(memory: EditMemory, log: Log) -> None:
    retraction = {"op": "retract", "subject": "Lamp 0", "relation": "price"}
    read(memory, log.record(to_json(retraction), offset=8))
    memory.erase(fact_key("default", "Lamp 0", "price"))
    keys = memory.status().keys
    memory.accept_truncation({PLACE: 8}, withdraw=True)
    assert memory.status().keys == keys
    assert memory.verify().ok


def test_the_leader_epoch_of_an_offset_is_not_forgotten(memory: EditMemory) -> None:
    """Accepting a gap of one partition stores the offsets of the others again, without their epochs."""
    memory.apply(Batch((), (), {PLACE: 8}, {PLACE: 5}))
    memory.apply(Batch((), (), {PLACE: 8}))
    assert memory.leader_epochs() == {PLACE: 5}
    memory.apply(Batch((), (), {PLACE: 9}))
    assert memory.leader_epochs() == {}
