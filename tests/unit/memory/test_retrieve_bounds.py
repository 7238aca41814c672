"""What a question reads of the memory is bounded: crowded names, members of a set, words compared."""

from __future__ import annotations

import pytest

from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.memory.retrieve import MOST_MEMBERS, MOST_NAMED
from lte_runtime.names import index as name_index
from lte_runtime.names.index import NameIndex
from lte_runtime.names.mention import Mention
from lte_runtime.names.reading import Reading
from ops.lab.scratch import memory_of

K = 8


def test_a_name_that_thousands_bear_gives_the_nearest_of_them_first() -> None:
    index, searches = NameIndex(), 0

    def nearest() -> tuple[int, ...]:
        nonlocal searches
        searches += 1
        return (9_001, 4_242, 7)

    for key_id in range(5_000):
        index.add(key_id, "default", ["Gizmo"])
    hits = index.find("Gizmo, gizmo and Gizmo?", "default", 16, nearest)
    assert len(hits) == 16
    assert {4_242, 7} < {hit.key_id for hit in hits}, "9001 does not bear the name"
    assert set(index.ids_of("gizmo", "default", 16, nearest)) == {hit.key_id for hit in hits}
    searches = 0
    index.add(9_999, "default", ["Widget"])
    assert [hit.key_id for hit in index.find("Widget", "default", 16, nearest)] == [9_999]
    assert searches == 0, "the search is for crowded names alone"


def test_the_fact_asked_for_is_found_behind_a_crowded_name() -> None:
    events = [
        {"op": "assert", "id": f"e{number}", "subject": f"Widget {number}", "subject_aliases": ["Gizmo"]}
        | {"relation": "harbour dues" if number == 1_490 else "list price", "target": f"{number} EUR"}
        for number in range(1_500)
    ]
    encoder = StubEncoder()
    with memory_of(events, encoder) as memory:
        question = "What are the harbour dues of Gizmo?"
        items = memory.candidates(question, None, namespace="default", k=K).items
        vector = encoder.encode([question], query=True)[0]
        few = memory.facts_of_subject("gizmo", namespace="default", limit=K, vector=vector)
        every = memory.facts_of_subject("gizmo", namespace="default")
    assert len(items) <= 3 * K
    assert any(item.fact.edit_id == "e1490" and item.matched_name == "gizmo" for item in items)
    assert len(few) == K
    assert "e1490" in {fact.edit_id for fact in few}
    assert len(every) == 1_500 > MOST_NAMED


def test_a_set_of_hundreds_gives_its_newest_members_and_leaves_room_for_others() -> None:
    events = [
        {"op": "assert", "id": f"m{number}", "subject": "Big Set", "relation": "member"}
        | {"target": f"Member {number}", "cardinality": "many"}
        for number in range(200)
    ] + [{"op": "assert", "id": "o", "subject": "Big Set", "relation": "owner", "target": "Ola Vik"}]
    with memory_of(events, StubEncoder()) as memory:
        items = memory.candidates("Who is a member of Big Set?", None, namespace="default").items
        member = next(item.fact for item in items if item.fact.relation == "member")
        cited, total = memory.members_beside(member, 16)
        owner = next(item.fact for item in items if item.fact.relation == "owner")
        alone = memory.members_beside(owner, 16)
    members = {item.fact.edit_id for item in items} - {"o"}
    assert members == {f"m{number}" for number in range(200 - MOST_MEMBERS, 200)}
    assert "o" in {item.fact.edit_id for item in items}
    assert [fact.edit_id for fact in cited] == [f"m{number}" for number in range(199, 183, -1)]
    assert total == 200, "the number is of all members"
    assert alone == ((owner,), 1)


@pytest.mark.parametrize("text", ["nordwnid cargoo zephry ", "nordwnid, Oslo, ", "nordwnid" * 40 + " "])
def test_misspelt_names_are_compared_with_so_many_words(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    index, compared = NameIndex(), 0
    for key_id in range(200):
        index.add(key_id, "default", [f"Nordwind Cargo {chr(97 + key_id % 26)}{key_id}", "Oslo"])
    misspelt = name_index.misspelt_name

    def counted(reading: Reading, name: str, first: int, stop: int) -> Mention | None:
        nonlocal compared
        compared += stop - first
        return misspelt(reading, name, first, stop)

    monkeypatch.setattr(name_index, "misspelt_name", counted)
    index.find(text * 1_000, "default", 16)
    assert compared <= name_index.MOST_COMPARED
