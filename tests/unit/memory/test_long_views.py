"""A key whose text is longer than the encoder reads: every part of it finds the key."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from event_log import Log

from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.facts.events import LONG_KEY, LONG_STATEMENT, fact_key
from lte_runtime.index.view_index import MOST_WINDOWS
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.memory.restore import WINDOWS
from lte_runtime.store.db import transaction

Opener = Callable[..., EditMemory]
HEAD = "orders are packed the day after they arrive"
TAIL = "how long is the warranty of used pumps"
PROMPT = f"{HEAD} and carriers collect all parcels in the afternoon {TAIL}"
KEY = fact_key("default", prompt=PROMPT)


class Encoder(StubEncoder):
    """Reads eight words of a text."""

    max_words = 8


@pytest.fixture
def memory(open_memory: Opener, log: Log) -> EditMemory:
    memory = open_memory(encoder=Encoder())
    memory.apply(log.batch(log.edit(prompt=PROMPT, target="two years", id="long"), *shorts(log)))
    return memory


def shorts(log: Log) -> list[object]:
    return [log.fact(f"Boss {n}", subject=f"Firm {n}") for n in range(20)]  # type: ignore[list-item]


def score(memory: EditMemory, question: str = TAIL, k: int = 3) -> float:
    """The cosine with which the long key is found; 0 when it is not."""
    items = memory.candidates(question, None, namespace="default", k=k).items
    return max((item.dense for item in items if item.fact.key == KEY), default=0.0)


def test_the_tail_of_a_long_prompt_is_searched(memory: EditMemory) -> None:
    assert score(memory, HEAD) > 0.9
    assert score(memory, TAIL) > 0.9
    assert memory.verify().problems == ()
    assert memory.status().vectors_live == 20 + 3


def test_a_long_relation_is_searched_like_a_prompt(open_memory: Opener, log: Log) -> None:
    memory = open_memory(encoder=Encoder())
    memory.apply(log.batch(log.fact("yes", relation=f"{PROMPT} for buyers"), *shorts(log)))
    (item, *_) = memory.candidates(TAIL, None, namespace="default", k=3).items
    assert (item.fact.target, item.dense > 0.8) == ("yes", True)


@pytest.mark.parametrize("mode", ["exact", "hnsw"])
def test_it_is_found_after_snapshot_restart_and_rebuild(open_memory: Opener, log: Log, mode: str) -> None:
    memory = open_memory(encoder=Encoder(), index_mode=mode)
    memory.apply(log.batch(log.edit(prompt=PROMPT, target="two years"), *shorts(log)))
    memory.snapshot()
    memory.apply(log.batch(log.edit(prompt="x " * 20 + "y", target="other")))
    memory.close()
    memory = open_memory(encoder=Encoder(), index_mode=mode)
    for step in (memory.rebuild, memory.maintain):
        assert (score(memory), memory.verify().problems) == (pytest.approx(1.0), ())
        step()
    assert memory.recall_self_check() > 0.99
    assert memory.status().vectors_live == 20 + 3 + 3


def test_an_update_encodes_nothing_and_a_retraction_takes_every_part(memory: EditMemory, log: Log) -> None:
    update = memory.apply(log.batch(log.edit(prompt=PROMPT, target="three years")))
    assert (update.encoded, score(memory)) == (0, pytest.approx(1.0))
    memory.apply(log.batch(log.edit(op="retract", prompt=PROMPT), log.edit(op="retract", prompt=PROMPT)))
    assert (score(memory), memory.status().vectors_live) == (0.0, 20)
    memory.apply(log.batch(log.edit(prompt=PROMPT, target="again")))
    assert (score(memory), memory.verify().problems) == (pytest.approx(1.0), ())


def test_erasing_takes_every_part(memory: EditMemory) -> None:
    memory.erase(KEY)
    assert (score(memory), memory.status().vectors_live, memory.verify().problems) == (0.0, 20, ())
    rows = memory._store.connection.execute("SELECT length(vector) FROM vectors").fetchall()
    assert {size for (size,) in rows} == {4 * Encoder.dimension}


def test_many_parts_of_one_key_leave_room_for_other_keys(open_memory: Opener, log: Log) -> None:
    memory = open_memory(encoder=Encoder())
    memory.apply(log.batch(log.edit(prompt="pump of a " * 200, target="x"), *shorts(log)))
    assert memory.status().vectors_live == 20 + MOST_WINDOWS
    items = memory.candidates("pump of a firm", None, namespace="default", k=5).items
    assert len({item.fact.key for item in items}) == len(items) == 5


def test_a_missing_part_is_a_problem(memory: EditMemory) -> None:
    index = memory._projection.indexes["default"]
    index.rows.remove([max(index.rows.ids())])
    assert memory.verify().problems == ("index of 'default': a vector differs from the stored one",)


def test_long_texts_are_flagged_and_counted(memory: EditMemory, log: Log) -> None:
    statement = "the warranty of a used pump is two years from the day of sale"
    edits = [
        log.fact("t", id="short", subject="Sump", relation="r"),
        log.fact("t", id="said", subject="Sump", relation="q", statement=statement),
        log.edit(prompt=PROMPT, target="ten years", id="key", revision=1),
    ]
    assert memory.apply(log.batch(*edits)).long_texts == {LONG_KEY: 1, LONG_STATEMENT: 2}
    flags = [memory.get_edit(edit_id).edit.flags for edit_id in ("short", "said", "key")]
    assert flags == [(), (LONG_STATEMENT,), (LONG_KEY, LONG_STATEMENT)]


def test_a_store_of_before_gets_the_missing_parts_once(memory: EditMemory, open_memory: Opener) -> None:
    memory.snapshot()
    _forget_windows(memory)
    memory.close()
    again = open_memory(encoder=Encoder())
    assert (score(again), again.verify().problems) == (pytest.approx(1.0), ())
    assert again.status().snapshot is None  # the one of before has first parts only


def _forget_windows(memory: EditMemory) -> None:
    """Leave the first vector of each view, as versions did that knew no others."""
    store = memory._store
    with transaction(store.connection):
        store.connection.execute("DELETE FROM meta WHERE name=?", (WINDOWS,))
        heads = Encoder().encode([PROMPT])
        (name,) = store.connection.execute("SELECT hash FROM vectors ORDER BY length(vector) DESC").fetchone()
        store.put_vectors({name: heads})


def test_an_encoder_that_reads_it_at_once_needs_no_parts(memory: EditMemory, open_memory: Opener) -> None:
    memory.close()
    other = Encoder(2)
    other.max_words = 100
    again = open_memory(encoder=other)
    assert (again.status().vectors_live, again.verify().problems) == (21, ())
