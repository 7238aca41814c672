"""What is said of single edits, by whichever path, is what the fold of the key's history says."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from event_log import NOW
from hypothesis import given
from test_edit_memory_properties import SEEDS, SETTINGS, SUBJECTS, Said, history_of, published

from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.errors import NotFound
from lte_runtime.facts.policy import WhyNot, fold
from lte_runtime.facts.reasons import why_not
from lte_runtime.memory.edit_memory import EditMemory, EditMemorySettings
from lte_runtime.store.records import EditRecord
from lte_runtime.types import Batch, Edit, FactKey

PAST = 1_590_000_000_000  # 2020-05-20: between the dates of the histories


def history(chance: random.Random) -> list[Said]:
    """A history with intervals; half of them of assertions alone, without revisions, so that all stand."""
    events = history_of(chance)
    plain = chance.random() < 0.5
    return [
        Said(event.subject, _with_interval(event.value, chance, plain=plain))
        for event in events
        if not plain or (event.value is not None and "target" in event.value and "op" not in event.value)
    ]


def _with_interval(
    value: dict[str, Any] | None, chance: random.Random, *, plain: bool
) -> dict[str, Any] | None:
    if value is None or value.get("op") == "retract":
        return value
    until = chance.choice([None, None, "2022-01-01", "2030-01-01"])
    start = "2028-01-01" if until is None and chance.random() < 0.2 else value.get("valid_from")
    revision = None if plain else value.get("revision")
    return {**value, "valid_until": until, "valid_from": start, "revision": revision}


@pytest.fixture(scope="module")
def fast() -> Iterator[Path]:
    """A folder in memory where there is one."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        yield Path(folder)


@SETTINGS
@given(seed=SEEDS)
def test_every_path_says_what_the_fold_says(fast: Path, seed: int) -> None:
    chance = random.Random(seed)
    edits = published(history(chance))
    at_ms = chance.choice([NOW, PAST])
    with tempfile.TemporaryDirectory(dir=fast) as folder:
        memory = EditMemory.open(Path(folder), StubEncoder(), EditMemorySettings(), now=lambda: at_ms)
        ends = {edit.position.topic_partition: edit.position.offset + 1 for edit in edits}
        memory.apply(Batch(tuple(edits), (), ends))
        reasons = reasons_by_fold(edits, at_ms)
        listed = {(r.edit.key, r.edit.id): r for r in pages_of_edits(memory, chance) if r.edit.op == "assert"}
        assert {place: WhyNot(r.winner_id, r.state) for place, r in listed.items()} == reasons
        for subject in SUBJECTS:
            assert pages_of_history(memory, subject, chance) == whole_history(memory, subject)
        for record in listed.values():
            assert memory.get_edit(record.edit.id) == record
            for edit_id in (record.edit.id, *record.collapsed):
                assert memory.why_not(edit_id) == WhyNot(record.winner_id, record.state)
        for subject in SUBJECTS:
            for record in whole_history(memory, subject):
                assert record.edit.op != "assert" or listed[record.edit.key, record.edit.id] == record
        memory.close()


def key_of(subject: str) -> FactKey:
    return FactKey("default", subject.lower(), "boss")


def reasons_by_fold(edits: list[Edit], at_ms: int) -> dict[tuple[FactKey | None, str], WhyNot]:
    """The oracle: each member of each key's fold, asked one by one."""
    reasons: dict[tuple[FactKey | None, str], WhyNot] = {}
    for key in map(key_of, SUBJECTS):
        state = fold([edit for edit in edits if edit.key == key or edit.key is None])
        for member in (*state.members, *state.withdrawn):
            reasons[key, member.edit.id] = why_not(state, member.edit.id, at_ms)
    return reasons


def pages_of_edits(memory: EditMemory, chance: random.Random) -> list[EditRecord]:
    records: list[EditRecord] = []
    token = None
    while True:
        page = memory.edits_page(limit=chance.randint(1, 30), after=token)
        records += page.records
        token = page.next_token
        if token is None:
            return records


def pages_of_history(memory: EditMemory, subject: str, chance: random.Random) -> list[EditRecord]:
    records: list[EditRecord] = []
    token = None
    try:
        while True:
            page = memory.history_page(key_of(subject), chance.randint(1, 9), token)
            records += page.records
            token = page.next_token
            if token is None:
                return records
    except NotFound:
        return []


def whole_history(memory: EditMemory, subject: str) -> list[EditRecord]:
    try:
        return memory.history(key_of(subject))
    except NotFound:
        return []
