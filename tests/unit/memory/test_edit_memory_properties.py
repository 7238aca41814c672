"""The same events in any legal order, with repeats, in any batches: the same state."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from event_log import NOW
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from plain_fold import plain_fold

from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.facts.events import EventLimits, decode, to_json
from lte_runtime.facts.policy import EARLIEST_MS, current, fold
from lte_runtime.memory.edit_memory import EditMemory, EditMemorySettings
from lte_runtime.types import Batch, Edit, FactKey, Position, RawRecord, TopicPartition

SUBJECTS = ("Acme", "Bolt", "Café")
TARGETS = ("Ann", "Bo", "Cy")


@dataclass(frozen=True)
class Said:
    """One event, before it has a place in the log. `value` None withdraws all of the subject's key."""

    subject: str
    value: dict[str, Any] | None

    def record(self, position: Position, at: int) -> RawRecord:
        key = f"default/{self.subject}/boss".encode()
        value = None if self.value is None else to_json(self.value)
        return RawRecord("lte.edits", position, key, value, (), at)


def history_of(chance: random.Random) -> list[Said]:
    """Up to 60 events; a retraction by id belongs to the key of the edit that it names."""
    names = [f"e{number}" for number in range(chance.randint(1, 60))]
    subject_of = {name: chance.choice(SUBJECTS) for name in names}
    events = []
    for name in names:
        value = _event(name, subject_of[name], chance)
        subject = subject_of[value["id"]] if value else subject_of[name]
        events.append(Said(subject, value if value is None or chance.random() < 0.97 else None))
    return events


def _event(name: str, subject: str, chance: random.Random) -> dict[str, Any]:
    key = {"id": name, "subject": subject, "relation": "boss"}
    revision = chance.choice([None, None, 0, 1, 2, 3])
    kind = chance.random()
    if kind < 0.6:
        start = chance.choice([None, None, "2020-01-01", "2021-01-01"])
        end = chance.choice([None, None, None, "2022-01-01"])
        target, cardinality = chance.choice(TARGETS), chance.choice(["one", "one", "many"])
        claim = {"target": target, "revision": revision, "cardinality": cardinality}
        claim |= {"valid_from": start, "valid_until": end}
        return {**key, **claim}
    if kind < 0.85:
        member = chance.choice([None, *TARGETS])
        return {**key, "op": "retract", "target": member, "revision": revision}
    number = max(0, int(name[1:]) - chance.randint(0, 6))
    return {"op": "retract", "id": f"e{number}"}


def shuffled(history: list[Said], chance: random.Random) -> list[Said]:
    """Another order that keeps each key's own, with repeats of events that have an id."""
    queues = {subject: [event for event in history if event.subject == subject] for subject in SUBJECTS}
    order: list[Said] = []
    while any(queues.values()):
        order.append(queues[chance.choice([name for name, queue in queues.items() if queue])].pop(0))
        repeatable = [event for event in order if event.value is not None]
        if repeatable and chance.random() < 0.2:
            order.append(chance.choice(repeatable))
    return order


def published(order: list[Said]) -> list[Edit]:
    """The events with the places that this order gives them, each key in its own partition."""
    offsets = dict.fromkeys(SUBJECTS, 0)
    edits = []
    for at, event in enumerate(order):
        position = Position("T", SUBJECTS.index(event.subject), offsets[event.subject])
        offsets[event.subject] += 1
        edits.append(decode(event.record(position, NOW - 10_000 + at), EventLimits(), NOW))
    return edits


def with_skewed_clocks(edits: list[Edit], chance: random.Random) -> list[Edit]:
    """The same records by clocks that jump, stand still, or give what no clock gives."""
    broken = (2**62, -1, 0, EARLIEST_MS - 1)
    skewed = []
    for edit in edits:
        drift = chance.choice([0, 0, 0, -5000, 5000])
        stamp = chance.choice(broken) if chance.random() < 0.05 else edit.timestamp_ms + drift
        skewed.append(replace(edit, timestamp_ms=stamp))
    return skewed


def state_of(directory: Path, edits: list[Edit], chance: random.Random) -> tuple[str, dict[str, set[str]]]:
    """Apply in random batches, once reopened in between; the hash, and what is current for each subject."""
    memory = EditMemory.open(directory, StubEncoder(), EditMemorySettings(), now=lambda: NOW)
    reopen_at = chance.randrange(len(edits) + 1)
    done = 0
    while done < len(edits):
        part = edits[done : done + chance.randint(1, 20)]
        ends = {edit.position.topic_partition: edit.position.offset + 1 for edit in part}
        memory.apply(Batch(tuple(part), (), ends))
        if done <= reopen_at < done + len(part):
            memory.close()
            memory = EditMemory.open(directory, StubEncoder(), EditMemorySettings(), now=lambda: NOW)
        done += len(part)
    assert memory.verify().problems == ()
    seen = {
        subject: {fact.target for fact in memory.facts_of_subject(subject, namespace="default")}
        for subject in SUBJECTS
    }
    state = memory.state_hash(), seen
    memory.close()
    return state


def folded(edits: list[Edit]) -> dict[str, set[str]]:
    """The oracle: the fold of each key's whole history, without store, batch or index."""
    targets_of = {}
    for subject in SUBJECTS:
        key = FactKey("default", subject.lower(), "boss")
        of_key = [edit for edit in edits if edit.key == key or edit.key is None]
        targets_of[subject] = {edit.target or "" for edit in current(fold(of_key), NOW)}
    return targets_of


TRIALS = int(os.environ.get("LTE_TRIALS", "40"))
SETTINGS = settings(
    deadline=None,
    max_examples=TRIALS,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a smaller seed is no simpler history
    suppress_health_check=list(HealthCheck),
)
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def fast() -> Iterator[Path]:
    """A folder in memory where there is one: what is tested here is not the disk."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        yield Path(folder)


@SETTINGS
@given(seed=SEEDS)
def test_any_legal_order_with_repeats_gives_the_same_state(fast: Path, seed: int) -> None:
    chance = random.Random(seed)
    history = history_of(chance)
    plain = published(history)
    with tempfile.TemporaryDirectory(dir=fast) as folder:
        first = state_of(Path(folder) / "a", plain, chance)
        assert first == state_of(Path(folder) / "b", published(shuffled(history, chance)), chance)
        assert first[1] == folded(plain)


@SETTINGS
@given(seed=SEEDS)
def test_records_in_any_order_of_arrival_give_the_same_state(fast: Path, seed: int) -> None:
    chance = random.Random(seed)
    edits = published(history_of(chance))
    mixed = [*edits, *chance.choices(edits, k=5)]
    chance.shuffle(mixed)
    with tempfile.TemporaryDirectory(dir=fast) as folder:
        assert state_of(Path(folder) / "a", edits, chance) == state_of(Path(folder) / "b", mixed, chance)


@SETTINGS
@given(seed=SEEDS)
def test_skewed_clocks_change_nothing_where_each_key_has_one_partition(fast: Path, seed: int) -> None:
    """Each order gives the state of the fold, and facts without dates are those that good clocks give."""
    chance = random.Random(seed)
    plain = published(history_of(chance))
    skewed = with_skewed_clocks(plain, chance)
    mixed = [*skewed, *chance.choices(skewed, k=5)]
    chance.shuffle(mixed)
    with tempfile.TemporaryDirectory(dir=fast) as folder:
        first = state_of(Path(folder) / "a", skewed, chance)
        assert first == state_of(Path(folder) / "b", mixed, chance)
        assert first[1] == folded(skewed)
    if all(edit.valid_from is None for edit in plain):
        assert first[1] == folded(plain)


@SETTINGS
@given(seed=SEEDS)
def test_the_fold_is_that_of_the_rules(seed: int) -> None:
    """The fold costs what retractions take, not what stands; its outcome is that of the plain rules."""
    chance = random.Random(seed)
    edits = with_skewed_clocks(published(history_of(chance)), chance)
    for subject in SUBJECTS:
        key = FactKey("default", subject.lower(), "boss")
        of_key = [edit for edit in edits if edit.key == key or edit.key is None]
        state = fold(of_key)
        withdrawn = {member.ids: member.withdrawn_by for member in state.withdrawn}
        assert ([member.ids for member in state.members], withdrawn) == plain_fold(of_key)


def test_watermarks_of_the_properties_are_kept(tmp_path: Path) -> None:
    """The helper above moves every partition; a memory that lost one would pass the properties."""
    memory = EditMemory.open(tmp_path, StubEncoder(), EditMemorySettings(), now=lambda: NOW)
    memory.apply(Batch((), (), {TopicPartition("T", place): 9 for place in range(3)}))
    assert dict(memory.next_offsets()) == {TopicPartition("T", place): 9 for place in range(3)}
    memory.close()
