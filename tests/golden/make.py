"""Writes a golden state: a state directory made by this version, and what this version answers from it.

`python tests/golden/make.py` writes `state-N.tar.xz` and `answers-N.json` beside it, N being the version of
the schema. A release that changes the schema adds its own; earlier ones stay as they are, so that every later
version is tried on the stores of every earlier one. Records, times and seeds are fixed: the same program
gives the same answers.
"""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from lte_runtime.answer.answerer import Answerer
from lte_runtime.answer.encoder.stub import StubEncoder
from lte_runtime.answer.engine.stub import StubEngine
from lte_runtime.answer.scope.gate import lexical_calibration
from lte_runtime.errors import BadRecord
from lte_runtime.facts.events import EventLimits, decode, fact_key
from lte_runtime.memory.edit_memory import EditMemory, EditMemorySettings
from lte_runtime.store.db import SCHEMA_VERSION
from lte_runtime.types import Batch, Edit, Position, Question, RawRecord, Rejected, TopicPartition

HERE = Path(__file__).parent
TOPIC_ID, PARTITIONS, SEED = "golden-topic-id", 3, 20261129
DAY = 86_400_000
START = 1_767_225_600_000  # 2026-01-01T00:00:00Z
NOW = START + 200 * DAY
TIMES: tuple[int | None, ...] = (None, START + 6 * DAY, START + 20 * DAY, START + 95 * DAY, START + 250 * DAY)
"""When questions are asked: now, three days in the past and one in the future."""

Event = Mapping[str, Any]


class Log:
    """Records as a broker would give them: offsets rise by one, timestamps by a minute."""

    def __init__(self) -> None:
        self.records: list[RawRecord] = []
        self._next = [0] * PARTITIONS

    def add(
        self,
        value: Event | bytes | None,
        partition: int = 0,
        *,
        key: bytes | None = None,
        headers: tuple[tuple[str, bytes], ...] = (),
        ahead_ms: int = 0,
    ) -> None:
        raw = json.dumps(value, ensure_ascii=False).encode() if isinstance(value, dict) else value
        position = Position(TOPIC_ID, partition, self._next[partition])
        self._next[partition] += 1
        timestamp = START + 60_000 * len(self.records) + ahead_ms
        self.records.append(RawRecord("lte.edits", position, key, raw, headers, timestamp))


def fact(subject: str, relation: str, target: str, **fields: object) -> dict[str, object]:
    return {"subject": subject, "relation": relation, "target": target, **fields}


def records() -> list[RawRecord]:
    """Every kind of event that the first release takes, a few hundred in all."""
    log = Log()
    _plain_facts(log)
    _order_and_revisions(log)
    _sets(log)
    _validity(log)
    _retractions(log)
    _skewed_clock(log)
    _deliveries(log)
    _forms(log)
    _refused(log)
    return log.records


def _plain_facts(log: Log) -> None:
    draw = Random(SEED)
    relations = ("price", "supplier", "warranty", "colour", "warehouse")
    for number in range(40):
        for relation in draw.sample(relations, 3):
            event = fact(f"Widget {number:03d}", relation, f"{relation} {draw.randrange(1000)}")
            log.add(event | {"id": f"widget-{number}-{relation}"}, number % PARTITIONS)
    for number in range(0, 40, 4):
        log.add(
            fact(f"Widget {number:03d}", "price", f"price {1000 + number}", subject_aliases=[f"W{number}-X"]),
            number % PARTITIONS,
        )


def _order_and_revisions(log: Log) -> None:
    for number in range(10):
        name = f"Harbour office {number}"
        log.add(fact(name, "harbour master", "Ada Lund", revision=3, id=f"h{number}-3"))
        log.add(fact(name, "harbour master", "Bo Quist", revision=2, id=f"h{number}-2"))
        log.add(fact(name, "harbour master", "Cy Dahl", id=f"h{number}-none"))
        if number % 2:
            log.add(fact(name, "harbour master", "Di Falk", revision=3, id=f"h{number}-3b"))
        if number % 3 == 0:
            log.add(fact(name, "harbour master", "Ada Lund", revision=3, id=f"h{number}-3c"))


def _sets(log: Log) -> None:
    for number in range(6):
        for member in ("Lea", "Max", "Ole", "Pia")[: 2 + number % 3]:
            log.add(fact(f"Team {number}", "member", member, cardinality="many"), 1)
    log.add({"op": "retract", "subject": "Team 1", "relation": "member", "target": "Max"}, 1)
    log.add(fact("Team 2", "member", "nobody else", cardinality="one"), 1)


def _validity(log: Log) -> None:
    for number in range(8):
        name = f"Museum {number}"
        log.add(fact(name, "ticket price", "10 EUR", valid_until="2026-03-01"))
        log.add(fact(name, "ticket price", "12 EUR", valid_from="2026-03-01", valid_until="2026-08-01"))
        log.add(fact(name, "ticket price", "14 EUR", valid_from="2026-08-01"))
    for week, name in enumerate(("Nils", "Olga", "Nils")):
        start, end = f"2026-01-{5 + 7 * week:02d}", f"2026-01-{12 + 7 * week:02d}"
        log.add(
            fact("Gate rota", "guard", name, valid_from=start, valid_until=end, revision=4, id=f"rota-{week}")
        )


def _retractions(log: Log) -> None:
    for number in range(6):
        name = f"Lamp {number}"
        log.add(fact(name, "price", "20 EUR", id=f"lamp-{number}-a"), 2)
        log.add(fact(name, "price", "25 EUR", id=f"lamp-{number}-b"), 2)
    log.add({"op": "retract", "subject": "Lamp 0", "relation": "price"}, 2)
    log.add({"op": "retract", "id": "lamp-1-a"}, 2)
    log.add({"op": "retract", "retracts": "lamp-2-b", "id": "undo-2"}, 2)
    log.add({"op": "retract", "subject": "Lamp 3", "relation": "price", "target": "20 EUR"}, 2)
    log.add(None, 2, key=fact_key("default", "Lamp 4", "price").text.encode())
    log.add({"op": "retract", "subject": "Lamp 6", "relation": "price", "revision": 5}, 2)
    log.add(fact("Lamp 6", "price", "30 EUR", revision=4, id="lamp-6-late"), 2)
    log.add({"op": "retract", "id": "shared-id"}, 2)
    log.add(fact("Lamp 7", "price", "31 EUR", id="shared-id"), 0)
    log.add(fact("Lamp 8", "price", "32 EUR", id="shared-id"), 1)


def _skewed_clock(log: Log) -> None:
    """A publisher whose clock is ten minutes ahead asserts what another one withdraws."""
    log.add(fact("Buoy 1", "colour", "green", id="buoy-1"), 1, ahead_ms=600_000)
    log.add({"op": "retract", "subject": "Buoy 1", "relation": "colour"}, 1)


def _deliveries(log: Log) -> None:
    for _ in range(3):
        log.add(fact("Ferry 1", "captain", "Una Berg", id="ferry-1", source={"uri": "crew"}), 0)
    log.add(fact("Ferry 1", "captain", "Vic Holm", id="ferry-1", source={"uri": "crew"}), 0)
    log.add(fact("Ferry 1", "captain", "Vic Holm", id="ferry-1", source={"uri": "other"}), 0)


def _forms(log: Log) -> None:
    log.add({"prompt": "The lighthouse of Skerry Point is painted", "target": "red and white"}, 1)
    log.add({"prompt": "Who tends the Skerry Point light?", "target": "Ines Moe", "namespace": "coast"}, 1)
    log.add(fact("Skerry Point", "height", "31 m", namespace="coast", target_aliases=["31 metres"]), 1)
    log.add(fact("Skerry Point", "height", "29 m", namespace="inland", confidence=0.5), 1)
    log.add(
        fact("Jordbærøy", "ferry fare", "1 299,50 kr", statement="A ticket to Jordbærøy costs 1 299,50 kr.")
    )
    headers = tuple(
        (name, text.encode())
        for name, text in (
            ("ce_specversion", "1.0"),
            ("ce_id", "cloud-1"),
            ("ce_source", "/registry"),
            ("ce_type", "lte.edit.v1"),
        )
    )
    log.add(fact("Cloud ferry", "operator", "Nimbus Lines"), 2, headers=headers)
    event = {"specversion": "1.0", "id": "cloud-2", "source": "/registry", "type": "lte.edit.v1"}
    log.add(event | {"data": fact("Cloud barge", "operator", "Stratus Lines")}, 2)
    log.add(fact("Аcme quay", "owner", "mixed script"), 2)


def _refused(log: Log) -> None:
    for value in (b"", b"\xff", b"[1]", b'{"op": "upsert"}', b'{"subject": "x", "relation": "y"}'):
        log.add(value, 1)
    log.add(fact("Refused", "price", "x", revision=-1), 1)


def batches(log: Sequence[RawRecord], size: int = 17) -> Iterator[Batch]:
    """The log as ingest would bring it: decoded, in small batches, refused records beside the edits."""
    for begin in range(0, len(log), size):
        block = log[begin : begin + size]
        edits: list[Edit] = []
        rejected: list[Rejected] = []
        for record in block:
            try:
                edits.append(decode(record, EventLimits(), NOW))
            except BadRecord as error:
                rejected.append(Rejected(record, error.code, str(error)))
        offsets = {record.position.topic_partition: record.position.offset + 1 for record in block}
        yield Batch(tuple(edits), tuple(rejected), offsets)


def fill(directory: Path) -> None:
    """A state directory with all of it: edits, quarantine, erasure, adapters, a snapshot and later edits."""
    log = records()
    memory = EditMemory.open(directory, StubEncoder(), EditMemorySettings(), now=lambda: NOW)
    try:
        parts = list(batches(log))
        for batch in parts[:-2]:
            memory.apply(batch)
        memory.erase(fact_key("default", "Widget 007", _erased_relation(log)))
        memory.adapters.point("align-000001", "a" * 64, "first", 3)
        memory.adapters.point("align-000002", "b" * 64, "second", 5)
        memory.adapters.step_back("rolled back", 5)
        memory.adapters.learned("align-000001", ["lamp-1-a", "widget-1-price"])
        memory.meta_set("base_model", "golden-base")
        memory.snapshot()
        for batch in parts[-2:]:
            memory.apply(batch)
        memory.mark_dead_lettered([memory.quarantined()[0].id])
    finally:
        memory.close()


def _erased_relation(log: Sequence[RawRecord]) -> str:
    bodies = (json.loads(record.value) for record in log if record.value and record.value[:1] == b"{")
    return next(str(body["relation"]) for body in bodies if body.get("subject") == "Widget 007")


def answers(directory: Path) -> dict[str, Any]:
    """What a version says of a state directory, as JSON."""
    memory = EditMemory.open(directory, StubEncoder(), EditMemorySettings(), now=lambda: NOW)
    engine = StubEngine()
    try:
        return {
            "facts": _facts(memory),
            "edits": _edits(memory),
            "answers": _answered(memory, engine),
            "quarantine": [
                [row.code, row.state, row.record.position.partition, row.record.position.offset, row.sha256]
                for row in memory.quarantined(1000)
            ],
            "next_offsets": _offsets(memory.next_offsets()),
            "adapters": [
                [move.no, move.adapter, move.reason, move.epoch, move.back]
                for move in memory.adapters.history()
            ],
            "tainted": [[edit.edit_id, edit.why] for edit in memory.adapters.trained_on("align-000001")],
            "problems": list(memory.verify().problems),
        }
    finally:
        engine.close()
        memory.close()


def subjects() -> list[tuple[str, str]]:
    """(namespace, subject) of every fact with a subject in the log."""
    bodies = (json.loads(record.value) for record in records() if (record.value or b"")[:1] == b"{")
    bodies = (body.get("data", body) for body in bodies)
    pairs = ((body.get("namespace", "default"), body.get("subject")) for body in bodies)
    return sorted({(namespace, subject) for namespace, subject in pairs if subject})


def _facts(memory: EditMemory) -> dict[str, list[list[object]]]:
    """By namespace, subject and time: edit, relation, target and position of each fact that holds."""
    facts_at: dict[str, list[list[object]]] = {}
    for namespace, subject in subjects():
        for at_ms in TIMES:
            facts = memory.facts_of_subject(subject, namespace=namespace, at_ms=at_ms)
            facts_at[f"{namespace}/{subject}@{at_ms}"] = sorted(
                [fact.edit_id, fact.relation, fact.target, fact.position.partition, fact.position.offset]
                for fact in facts
            )
    return facts_at


def _edits(memory: EditMemory) -> list[list[object]]:
    """Every edit with its state, the last applied first."""
    return [
        [
            record.edit.id,
            record.edit.op.value,
            record.edit.key.text if record.edit.key else None,
            record.state,
            record.winner_id,
            list(record.collapsed),
            [[position.partition, position.offset] for position in record.positions],
        ]
        for record in memory.list_edits(limit=10_000)
    ]


def _answered(memory: EditMemory, engine: StubEngine) -> dict[str, list[object]]:
    encoder = StubEncoder()
    answerer = Answerer(memory, encoder, lexical_calibration(encoder.fingerprint), engine)
    questions = [
        "What is the price of Widget 004?",
        "What is the price of W8-X?",
        "Who is the guard of Gate rota?",
    ]
    questions += [f"Who is the harbour master of Harbour office {number}?" for number in range(10)]
    questions += [f"What is the ticket price of Museum {number}?" for number in range(8)]
    questions += [f"What is the price of Lamp {number}?" for number in range(9)]
    questions += [f"Who is a member of Team {number}?" for number in range(6)]
    questions += ["Who is the operator of Cloud ferry?", "What is the capital of France?"]
    replies: dict[str, list[object]] = {}
    for text in questions:
        for at_ms in TIMES:
            answer = answerer.answer(Question(text, as_of=at_ms))
            cited = sorted(citation.fact.edit_id for citation in answer.citations)
            replies[f"{text}@{at_ms}"] = [answer.text, answer.scope.value, cited]
    return replies


def _offsets(offsets: Mapping[TopicPartition, int]) -> list[list[object]]:
    return sorted([place.topic_id, place.partition, at] for place, at in offsets.items())


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        state = Path(scratch) / "state"
        fill(state)
        with tarfile.open(HERE / f"state-{SCHEMA_VERSION}.tar.xz", "w:xz") as archive:
            archive.add(state, "state")
        answered = answers(state)
    text = json.dumps(answered, ensure_ascii=False, indent=0, sort_keys=True)
    (HERE / f"answers-{SCHEMA_VERSION}.json").write_text(text + "\n", encoding="utf-8")
    print(f"{len(answered['edits'])} edits, problems: {answered['problems']}", file=sys.stderr)


if __name__ == "__main__":
    main()
