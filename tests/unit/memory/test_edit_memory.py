"""The edit memory as questions and operators see it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_log import NOW, Log

from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.errors import BadRecord, Cancelled, NotFound, Refused
from lte_runtime.facts.events import (
    ORIGINAL_POSITION,
    EventLimits,
    decode,
    fact_key,
    original_position_header,
)
from lte_runtime.memory import retrieve
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.types import Batch, Candidates, Position, Rejected, TopicPartition, Vectors

Opener = Callable[..., EditMemory]
BOSS = fact_key("default", "Acme", "boss")


def targets(
    memory: EditMemory, question: str = "Who is the boss of Acme?", at_ms: int | None = None
) -> set[str]:
    return {item.fact.target for item in ask(memory, question, at_ms).items}


def ask(
    memory: EditMemory, question: str = "Who is the boss of Acme?", at_ms: int | None = None
) -> Candidates:
    return memory.candidates(question, None, namespace="default", at_ms=at_ms)


class Encoder(StubEncoder):
    """Refuses texts with the word refuse, makes NaN of those with nan; counts what it encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded = 0

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        if any("refuse" in text for text in texts):
            raise ValueError("refused")
        vectors = super().encode(texts, query=query)
        self.encoded += len(texts)
        vectors[["nan" in text for text in texts]] = np.nan
        return vectors


def test_an_event_is_found_and_cited(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    edit = log.fact("Ann", id="a", subject_aliases=["Acme Corp"], source={"uri": "u", "publisher": "hr"})
    applied = memory.apply(log.batch(edit))
    assert (applied.applied, applied.duplicates, applied.rejected) == (("a",), 0, 0)
    candidate = ask(memory).items[0]
    assert (candidate.fact.edit_id, candidate.fact.target, candidate.fact.position) == (
        "a",
        "Ann",
        edit.position,
    )
    assert (candidate.fact.key, candidate.fact.source_uri, candidate.fact.publisher) == (BOSS, "u", "hr")
    assert candidate.lexical == 1.0
    assert [fact.target for fact in memory.facts_of_subject("ACME corp", namespace="default")] == ["Ann"]
    assert memory.candidates("boss of Acme", None, namespace="other").items == ()


def test_update_retraction_and_restore_change_no_vector(open_memory: Opener, log: Log) -> None:
    encoder = Encoder()
    memory = open_memory(encoder=encoder)
    steps = [
        log.fact("Ann", id="a"),
        log.fact("Bo", id="b"),
        log.retract(id="b"),
        log.retract(),
        log.fact("Cy"),
    ]
    seen = []
    for edit in steps:
        memory.apply(log.batch(edit))
        seen.append({fact.target for fact in memory.facts_of_subject("Acme", namespace="default")})
    assert seen == [{"Ann"}, {"Bo"}, {"Ann"}, set(), {"Cy"}]
    assert encoder.encoded == 1
    assert memory.verify().problems == ()


def test_the_watermark_moves_with_the_batch(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    place = TopicPartition("T", 0)
    assert memory.next_offsets() == {}
    assert memory.wait_for({place: 1}, 0.01) is False
    with pytest.raises(Cancelled):
        memory.wait_for({place: 1}, float("inf"), lambda: True)
    waited = threading.Thread(target=lambda: done.append(memory.wait_for({place: 1}, 30)))
    done: list[bool] = []
    waited.start()
    memory.apply(log.batch(log.fact("Ann")))
    waited.join(30)
    assert done == [True]
    assert ask(memory).watermarks == memory.watermarks() == memory.next_offsets() == {place: 1}


def test_repeats_are_dropped_and_counted(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    edit, again = log.fact("Ann", id="a"), log.fact("Ann", id="a")
    memory.apply(log.batch(edit))
    assert memory.apply(log.batch(edit, again)).duplicates == 2
    record = memory.get_edit("a")
    assert [position.offset for position in record.positions] == [0, 1]
    assert (memory.status().edits, memory.status().duplicates) == (1, 2)


def test_an_id_with_another_content_is_quarantined(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    applied = memory.apply(log.batch(log.fact("Ann", id="a"), log.fact("Bo", id="a")))
    assert (applied.applied, applied.conflicts, applied.rejected) == (("a",), 1, 1)
    (row,) = memory.quarantined()
    assert (row.code, row.record.position.offset, row.state) == ("id_conflict", 1, "pending")
    assert targets(memory) == {"Ann"}
    other_source = log.fact("Bo", id="a", source={"uri": "elsewhere"})
    assert memory.apply(log.batch(other_source)).conflicts == 0


def test_a_number_and_its_text_are_one_target(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    number = log.fact(2040, id="a", cardinality="many")  # type: ignore[arg-type]
    text = log.fact("2040", id="a", cardinality="many")
    other = log.fact("2100", id="b", cardinality="many")
    applied = memory.apply(log.batch(number, text, other))
    assert (applied.applied, applied.duplicates, applied.conflicts) == (("a", "b"), 1, 0)
    assert targets(memory) == {"2040", "2100"}
    memory.apply(log.batch(log.retract(target="2040"), log.retract(target=2100)))
    assert targets(memory) == set()


def test_the_deletion_of_a_table_row_takes_its_fact(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    rows = [("a", "Ann", "false"), ("b", "Bo", "false"), ("c", "Ann", "true")]
    for edit_id, target, deleted in rows:
        memory.apply(log.batch(log.fact(target, id=edit_id, cardinality="many", __deleted=deleted)))
    assert targets(memory) == {"Bo"}
    for edit_id, target, deleted in [("d", "20 EUR", "0"), ("e", "25 EUR", "0"), ("f", "25 EUR", "1")]:
        memory.apply(log.batch(log.fact(target, id=edit_id, relation="price", __deleted=deleted)))
    assert memory.facts_of_subject("Acme", namespace="default") == memory.facts_of_keys([1])
    assert memory.verify().ok


def test_bad_records_wait_for_the_dead_letter_topic(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    record = log.record(b"\xff", key=b"k", headers=(("h", b"\xfe"), ("h", b"2")))
    memory.apply(log.batch(log.fact("Ann"), rejected=(Rejected(record, "not_utf8", "no"),)))
    (row,) = memory.quarantine_pending_dlq()
    assert row.record == record
    assert (row.code, row.message, len(row.sha256), row.received_ms) == ("not_utf8", "no", 64, NOW)
    assert memory.quarantine_bytes() >= len(record.value or b"")
    memory.mark_dead_lettered([row.id])
    assert memory.quarantine_pending_dlq() == []
    assert memory.quarantine_get(row.id).state == "dead_lettered"
    with pytest.raises(NotFound):
        memory.quarantine_get(99)


def test_a_replay_keeps_its_place_and_is_marked(open_memory: Opener, log: Log) -> None:
    """As after an upgrade: what was refused is an event now, and older than what came meanwhile."""
    memory = open_memory()
    old = log.fact("Ann", id="a").raw
    assert old
    memory.apply(log.batch(log.fact("Bo", id="b"), rejected=(Rejected(old, "unknown_op", "op"),)))
    (record,) = memory.requeue([1])
    header = original_position_header(record.position, record.timestamp_ms)
    replay = log.record(record.value, headers=(header,))
    assert memory.apply(log.batch(decode(replay, EventLimits(), NOW))).applied == ("a",)
    assert memory.quarantine_get(1).state == "replayed"
    assert targets(memory) == {"Bo"}
    assert memory.get_edit("a").positions == (old.position,)


def test_a_replay_that_fails_again_stays_one_row(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    record = log.record(b"{}")
    memory.apply(log.batch(rejected=(Rejected(record, "missing_key", "old"),)))
    used = memory.quarantine_bytes()
    header = original_position_header(record.position, record.timestamp_ms)
    replay = log.record(b"{}", headers=(header,))
    with pytest.raises(BadRecord):
        decode(replay, EventLimits())
    memory.apply(log.batch(rejected=(Rejected(replay, "missing_key", "new"),)))
    assert [row.message for row in memory.quarantined()] == ["new"]
    assert memory.quarantine_bytes() == used


def test_a_forged_place_is_ignored(open_memory: Opener, log: Log) -> None:
    """Nobody gets behind or before others in the order by a header that nothing proves."""
    memory = open_memory()
    refused = log.record(b'{"op": "explode"}')
    memory.apply(log.batch(log.fact("Ann", id="a"), rejected=(Rejected(refused, "unknown_op", "op"),)))
    forged: list[tuple[str, bytes]] = [
        *(original_position_header(Position("T", 0, offset), 1) for offset in (0, 1, 7)),
        (ORIGINAL_POSITION, b"x/y/z"),
    ]
    for number, header in enumerate(forged):
        record = log.record(log.body(f"Bo {number}"), headers=(header,))
        applied = memory.apply(log.batch(decode(record, EventLimits(), NOW)))
        assert (len(applied.applied), applied.unproven) == (1, 1)
        assert targets(memory) == {f"Bo {number}"}
    bad = log.record(b"{}", headers=(forged[0],))
    assert memory.apply(log.batch(rejected=(Rejected(bad, "missing_key", "no"),))).unproven == 1
    assert [row.record.position for row in memory.quarantined()] == [refused.position, bad.position]
    assert memory.quarantined()[0].code == "unknown_op"


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("known_now", [True, False])
def test_replicas_agree_on_a_replay_through_the_topic(
    open_memory: Opener, log: Log, together: bool, known_now: bool
) -> None:
    """Whether they refused the record or read it after an upgrade, in one batch or in two."""
    memory = open_memory()
    first = log.record(log.body("Ann"))
    header = original_position_header(first.position, first.timestamp_ms)
    newer = log.fact("Bo")
    replay = decode(log.record(first.value, headers=(header,)), EventLimits(), NOW)
    edits = (decode(first, EventLimits(), NOW),) if known_now else ()
    rejected = () if known_now else (Rejected(first, "unknown_op", "op"),)
    if together:
        memory.apply(Batch((*edits, newer, replay), rejected, {}))
    else:
        memory.apply(Batch((*edits, newer), rejected, {}))
        memory.apply(Batch((replay,), (), {}))
    assert targets(memory) == {"Bo"}
    assert memory.get_edit("T:0:0").positions == (first.position,)
    assert memory.status().edits == 2


def test_an_erased_record_proves_no_place(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    first = log.record(log.body("Ann"))
    memory.apply(log.batch(log.fact("Bo"), rejected=(Rejected(first, "unknown_op", "op"),)))
    memory.erase(BOSS)
    header = original_position_header(first.position, first.timestamp_ms)
    replay = decode(log.record(first.value, headers=(header,)), EventLimits(), NOW)
    assert memory.apply(log.batch(replay)).unproven == 1
    assert memory.get_edit(replay.id).positions == (replay.position,)


def test_text_that_the_encoder_refuses_stops_no_other(open_memory: Opener, log: Log) -> None:
    memory = open_memory(encoder=Encoder())
    bad = [log.fact("x", subject="refuse me"), log.fact("x", subject="nan")]
    good = [log.fact("Ann"), log.fact("y", subject="REFUSE me")]
    applied = memory.apply(log.batch(bad[0], good[0], bad[1], good[1]))
    assert (len(applied.applied), applied.rejected) == (2, 2)
    assert {row.code for row in memory.quarantined()} == {"encoder_failed"}
    assert memory.verify().problems == ()


def test_questions_about_the_past(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    memory.apply(log.batch(log.fact("Ann", at=NOW - 100), log.fact("Bo", at=NOW - 50)))
    times = (None, NOW - 75, NOW - 150)
    assert [targets(memory, at_ms=at_ms) for at_ms in times] == [{"Bo"}, {"Ann"}, set()]


def test_expired_neighbours_do_not_hide_a_fact(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    expired = [
        log.fact("x", subject=f"Acme {n}", valid_from="2019-01-01", valid_until="2020-01-01")
        for n in range(60)
    ]
    memory.apply(log.batch(*expired, log.fact("Ann", subject="Zenith", relation="owner")))
    assert targets(memory, "the boss of Acme") == {"Ann"}


def test_an_ambiguous_name_brings_all_and_is_flagged(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    facts = [
        log.fact(name, subject=f"Mercury {name}", subject_aliases=["Mercury"]) for name in ("Band", "Car")
    ]
    memory.apply(log.batch(*facts, log.fact("Ann")))
    ambiguous = {
        item.fact.target: item.ambiguous for item in ask(memory, "Who is the boss of Mercury?").items
    }
    assert ambiguous == {"Band": True, "Car": True, "Ann": False}


def test_a_set_comes_whole(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    memory.apply(log.batch(*(log.fact(name, cardinality="many") for name in ("Ann", "Bo"))))
    memory.apply(log.batch(log.fact("Cy", cardinality="many"), log.retract(target="Bo")))
    assert targets(memory) == {"Ann", "Cy"}


def test_history_list_and_reasons(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    edits = [
        log.fact("Ann", id="a", revision=1),
        log.fact("Bo", id="b", revision=2),
        log.fact("Cy", id="c", revision=2),
        log.fact("CY", id="c2", revision=2),
        log.edit(id="p", prompt="Who owns it?", target="Dee"),
        log.retract(id="p"),
    ]
    memory.apply(log.batch(*edits))
    history = {record.edit.id: (record.state, record.winner_id) for record in memory.history(BOSS)}
    assert history == {"a": ("superseded", "c"), "b": ("conflict_lost", "c"), "c": ("current", None)}
    assert memory.get_edit("c2").collapsed == ("c2",)
    assert [position.offset for position in memory.get_edit("c").positions] == [2, 3]
    assert (memory.why_not("b").reason, memory.why_not("p").winner_id) == ("conflict_lost", "retract:p")
    listed = memory.list_edits()
    assert [record.edit.id for record in listed] == ["retract:p", "p", "c", "b", "a"]
    assert [record.state for record in listed[:2]] == ["retraction", "retracted"]
    assert [record.edit.id for record in memory.list_edits(subject="ACME", limit=1, after="c")] == ["b"]
    assert memory.list_edits(namespace="other") == []
    for call in (memory.get_edit, memory.why_not):
        with pytest.raises(NotFound):
            call("x")
    with pytest.raises(NotFound):
        memory.history(fact_key("default", "x", "y"))


def test_a_second_owner_is_refused_and_told_of_the_first(open_memory: Opener) -> None:
    import os

    memory = open_memory()
    with pytest.raises(Refused, match=f"pid {os.getpid()} on "):
        open_memory()
    memory.close()
    open_memory()


@pytest.mark.parametrize("mode", ["exact", "hnsw"])
def test_both_index_paths(open_memory: Opener, log: Log, mode: str) -> None:
    memory = open_memory(index_mode=mode)
    memory.apply(log.batch(*(log.fact(f"P{n}", subject=f"Firm {n}") for n in range(50))))
    candidates = ask(memory, "The boss of Firm 7")
    assert (candidates.items[0].fact.target, candidates.index_path) == ("P7", mode)
    assert memory.recall_self_check() == 1.0


def test_dead_vectors_are_swept(open_memory: Opener, log: Log) -> None:
    memory = open_memory(index_mode="hnsw")
    memory.apply(log.batch(*(log.fact("x", subject=f"Firm {n}", id=f"f{n}") for n in range(50))))
    memory.apply(log.batch(*(log.retract(id=f"f{n}") for n in range(30))))
    assert memory.status().vectors_dead == 30
    assert memory.maintain() == 1
    assert (memory.status().vectors_live, memory.status().vectors_dead) == (20, 0)
    assert memory.maintain() == 0


def test_two_memories_with_the_same_events_have_the_same_state_at_the_same_offsets(
    open_memory: Opener, log: Log
) -> None:
    batch = log.batch(*(log.fact(f"P{n}", subject=f"Firm {n}") for n in range(5)))
    one, other = open_memory(), open_memory("other")
    one.apply(batch)
    assert one.state_at() != other.state_at()
    other.apply(batch)
    assert one.state_at() == other.state_at() == (one.state_hash(), one.next_offsets())


def test_a_retraction_is_never_served_from_its_watermark_on(open_memory: Opener, log: Log) -> None:
    """Readers ask while facts come and go; each answer is held against the watermark it carries."""
    memory = open_memory()
    facts = [log.fact("Ann", id=f"a{n}") if n % 2 == 0 else log.retract(id=f"a{n - 1}") for n in range(120)]
    wrong: list[object] = []
    stop = threading.Event()

    def read() -> None:
        place = TopicPartition("T", 0)
        while not stop.is_set():
            candidates = ask(memory)
            seen = candidates.watermarks.get(place, 0)
            wrong.extend(
                (item.fact.edit_id, seen)
                for item in candidates.items
                if int(item.fact.edit_id[1:]) + 2 <= seen  # its retraction lies below the watermark
            )

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for offset, edit in enumerate(facts):
        batch = log.batch(edit)
        memory.apply(type(batch)(batch.edits, (), {TopicPartition("T", 0): offset + 1}))
    stop.set()
    for reader in readers:
        reader.join(60)
    assert wrong == []


def test_a_question_reads_facts_of_a_topic_that_came_after_it_began(
    open_memory: Opener, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, candidates = open_memory(), retrieve.candidates

    def late(*arguments: Any) -> Any:
        memory.apply(log.batch(log.fact("Ann")))
        return candidates(*arguments)

    monkeypatch.setattr(retrieve, "candidates", late)
    assert [item.fact.target for item in ask(memory).items] == ["Ann"]


def test_meta_is_durable(open_memory: Opener) -> None:
    memory = open_memory()
    memory.meta_set("adapter", "align-000001")
    memory.close()
    memory = open_memory()
    assert (memory.meta_get("adapter"), memory.meta_get("none")) == ("align-000001", None)


def test_a_retraction_by_id_outlives_the_erasure_of_one_of_its_keys(open_memory: Opener, log: Log) -> None:
    """One id in two keys, withdrawn at once: erasing one key does not bring the other late event back."""
    memory = open_memory()
    memory.apply(log.batch(log.fact("Ann", id="x"), log.retract(id="x")))
    memory.erase(BOSS)
    memory.apply(log.batch(log.fact("Bo", id="x", relation="owner"), log.fact("Ann", id="x")))
    assert targets(memory) == set()
    assert memory.verify().ok


@pytest.mark.parametrize("target", [None, "Ann"], ids=["of the key", "of one member"])
def test_a_retraction_outlives_the_erasure_of_its_key_without_text(
    open_memory: Opener, log: Log, tmp_path: Path, target: str | None
) -> None:
    memory = open_memory()
    retraction = log.retract(revision=5, target=target)
    memory.apply(log.batch(log.fact("Ann", revision=4), retraction))
    memory.erase(BOSS)
    assert b"acme" not in (tmp_path / "state" / "edits.db").read_bytes().lower()
    assert memory.apply(log.batch(retraction)).duplicates == 1
    memory.apply(log.batch(log.fact("Ann", revision=3)))
    assert targets(memory) == set()
    memory.apply(log.batch(log.fact("Ann", revision=6)))
    assert targets(memory) == {"Ann"}
    assert memory.verify().ok
    memory.close()
    assert targets(open_memory()) == {"Ann"}


def test_erasing_covers_files_of_jobs_and_copies_of_before(
    open_memory: Opener, log: Log, tmp_path: Path
) -> None:
    memory = open_memory()
    text = 'Élise "Ossington" Vane'
    memory.apply(log.batch(secret := log.fact(text, id="s", subject="Marigold"), log.fact("Ann")))
    state = tmp_path / "state"
    job = state / "realign" / "run-000001"
    (job / "data").mkdir(parents=True)
    row, other = json.dumps({"target": text.upper()}), json.dumps({"target": "Ann"})
    for name, body in (("facts.jsonl", row), ("data/rows.jsonl", f"{other}\n{row}"), ("probes.jsonl", other)):
        (job / name).write_text(body)
    (state / "edits.db.before-2").write_bytes(b"a copy")
    assert secret.key
    receipt = memory.erase(secret.key)
    run = "realign/run-000001"
    assert receipt.files == ("edits.db.before-2", f"{run}/data/rows.jsonl", f"{run}/facts.jsonl")
    assert [path.name for path in job.rglob("*") if path.is_file()] == ["probes.jsonl"]


def test_erasing_leaves_no_trace_but_the_positions(open_memory: Opener, log: Log, tmp_path: Path) -> None:
    memory = open_memory()
    secret = log.fact("Ossington Vane", id="s", subject="Marigold Thistlewood", relation="heir")
    junk = log.record(b'{"subject": "marigold THISTLEWOOD", "relation": "heir", "target": 7}')
    other = log.record(b"not about it")
    rejected = (Rejected(junk, "wrong_type", "target"), Rejected(other, "not_json", "no"))
    memory.apply(
        log.batch(
            secret,
            log.fact("Ann"),
            log.fact("Ossington", id="s", subject="Marigold Thistlewood", relation="heir"),
            rejected=rejected,
        )
    )
    memory.snapshot()
    assert secret.key
    receipt = memory.erase(secret.key)
    assert (receipt.edits, receipt.positions, receipt.quarantined, receipt.vectors) == (1, 1, 2, 1)
    assert any("Kafka" in text for text in receipt.not_covered)
    assert targets(memory, "heir of Marigold Thistlewood") == {"Ann"}
    assert memory.apply(log.batch(secret)).duplicates == 1
    with pytest.raises(NotFound):
        memory.erase(secret.key)
    with pytest.raises(Refused):
        memory.requeue([1])
    assert memory.verify().problems == ()
    memory.close()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not any(word in path.read_bytes().lower() for word in (b"thistlewood", b"ossington")), path
    reopened = open_memory()
    assert targets(reopened) == {"Ann"}
    assert reopened.status().snapshot is not None
