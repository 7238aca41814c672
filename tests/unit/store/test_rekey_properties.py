"""Any history written by the version before becomes by the upgrade what this version makes of its events.

The version before is this one with its first key form and without what schema 4 added.
"""

from __future__ import annotations

import random
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import apsw
from event_log import NOW
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lte_runtime.answer.encoder.stub import StubEncoder
from lte_runtime.facts.events import EventLimits, decode, to_json
from lte_runtime.memory.edit_memory import STORE_FILE, EditMemory
from lte_runtime.names.normalise import FOLD_VERSION, key_form
from lte_runtime.store.db import FOLD
from lte_runtime.store.upgrade import rekey_store
from lte_runtime.types import Batch, Position, RawRecord

NAMES = (
    "O'Hara",
    "O’Hara",
    "OʼHARA",
    "Işık",
    "IŞIK",
    "işık",
    "Tug-4",
    "Tug–4",
    "Tug 4",
    "Müller",
    "MU\u0308LLER",
)
TARGETS = ("Ann", "D'Arcy", "D’ARCY", "É–1", "e\u0301-1")
SPACES = ("default", "Lloyd's", "Lloyd’s")
RELATIONS = ("boss", "captain’s mate", "captain's mate")
HIDDEN = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b\u2060\ufeff\u00ad"
HIDDEN += "\u180e\u200c\u200d"


def first_key_form(text: str) -> str:
    """The key form of before."""
    if text.isascii():
        return " ".join(text.lower().split())
    shown = text.translate(dict.fromkeys(map(ord, HIDDEN)))
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFD", shown).casefold()).split())


@contextmanager
def version_before() -> Iterator[None]:
    users = ("facts.keys", "facts.policy", "facts.events", "store.key_update")
    with ExitStack() as patched:
        for user in users:
            patched.enter_context(patch(f"lte_runtime.{user}.key_form", first_key_form))
        yield


@given(text=st.text(max_size=20) | st.text(st.sampled_from("".join(NAMES + TARGETS) + HIDDEN), max_size=12))
def test_the_new_form_of_the_old_form_is_the_new_form(text: str) -> None:
    """So keys can be brought to it from what the store has of them."""
    assert key_form(first_key_form(text)) == key_form(text)


def records_of(chance: random.Random) -> list[RawRecord]:
    """Up to 40 events in two partitions, about few facts in many spellings."""
    records: list[RawRecord] = []
    offsets = [0, 0]
    for number in range(chance.randint(1, 40)):
        partition = chance.randrange(2)
        position = Position("T", partition, offsets[partition])
        offsets[partition] += 1
        namespace, subject = chance.choice(SPACES), chance.choice(NAMES)
        relation = chance.choice(RELATIONS)
        key = "\x1f".join((namespace, subject, relation)).encode()
        value = _event(number, namespace, subject, relation, chance)
        records.append(
            RawRecord("lte.edits", position, key, value and to_json(value), (), NOW - 10_000 + number)
        )
    return records


def _event(
    number: int, namespace: str, subject: str, relation: str, chance: random.Random
) -> dict[str, Any] | None:
    kind = chance.random()
    if kind < 0.05:
        return None
    if kind < 0.12:
        return {"op": "retract", "id": f"e{chance.randrange(number + 1)}", "namespace": namespace}
    event: dict[str, Any] = {
        "id": f"e{number}",
        "namespace": namespace,
        "subject": subject,
        "relation": relation,
    }
    event |= {"revision": chance.choice([None, None, None, 1, 2]), "target": chance.choice(TARGETS)}
    event |= {"subject_aliases": chance.sample(NAMES, chance.randrange(3))}
    event |= {"source": {"publisher": chance.choice(["", "shop", "cms"])}}
    if kind < 0.3:
        return event | {"op": "retract", "target": chance.choice([None, *TARGETS])}
    return event | {"cardinality": chance.choice(["one", "one", "many"])}


def applied(directory: Path, records: list[RawRecord]) -> None:
    memory = EditMemory.open(directory, StubEncoder(), now=lambda: NOW)
    try:
        edits = [decode(record, EventLimits(), NOW) for record in records]
        for begin in range(0, len(edits), 7):
            part = tuple(edits[begin : begin + 7])
            ends = {edit.position.topic_partition: edit.position.offset + 1 for edit in part}
            memory.apply(Batch(part, (), ends))
    finally:
        memory.close()


def as_schema_3(store: Path) -> None:
    connection = apsw.Connection(str(store))
    connection.execute(f"DROP TABLE joined_keys; DELETE FROM meta WHERE name='{FOLD}'")
    connection.pragma("user_version", 3)
    connection.close()


def seen(directory: Path) -> dict[str, Any]:
    memory = EditMemory.open(directory, StubEncoder(), now=lambda: NOW)
    try:
        assert memory.verify().problems == ()
        records = memory.list_edits(limit=1000)
        return {
            "hash": memory.state_hash(),
            "edits": sorted(
                (str(record.edit.position), record.edit.content_hash, record.state, str(record.winner_id))
                for record in records
            ),
            "keys": (memory.status().keys, memory.status().current_facts, memory.status().vectors_live),
        }
    finally:
        memory.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_an_upgraded_history_is_the_history_read_anew(seed: int) -> None:
    records = records_of(random.Random(seed))
    with tempfile.TemporaryDirectory() as folder:
        before, new = Path(folder) / "before", Path(folder) / "new"
        with version_before():
            applied(before, records)
        as_schema_3(before / STORE_FILE)
        report = rekey_store(before / STORE_FILE, join_publishers=True)
        applied(new, records)
        assert seen(before) == seen(new)
        assert report.keys - seen(before)["keys"][0] == sum(len(j.former) - 1 for j in report.joined)


def test_a_new_store_names_the_version_of_its_keys(tmp_path: Path) -> None:
    applied(tmp_path, [])
    memory = EditMemory.open(tmp_path, StubEncoder())
    assert memory.meta_get(FOLD) == str(FOLD_VERSION)
    assert memory.state_hash().startswith(f"{FOLD_VERSION}-")
    memory.close()
