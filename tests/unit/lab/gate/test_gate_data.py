"""What calibration learns from: the tables are whole, and their questions are labelled rightly."""

from __future__ import annotations

from collections import Counter

from ops.lab.gate import gate_data

ROWS = gate_data.everyday(3, worlds=1)
EVENTS = {row["id"]: row for row in ROWS if "id" in row}
ASKED = [row for row in ROWS if "question" in row]


def test_every_relation_has_questions_and_targets_and_each_kind_names_it_once() -> None:
    for kind in gate_data.kinds():
        assert max(Counter(r.noun for r in kind.relations).values()) == 1, kind.name
        for relation in kind.relations:
            assert len(relation.asking) >= 2, relation.noun
            assert relation.targets, relation.noun
            assert all("{s}" in text for text in (*relation.asking, *relation.other)), relation.noun
            assert not set(relation.asking) & set(relation.other), relation.noun


def test_questions_name_the_subject_or_its_alias() -> None:
    for row in ASKED:
        fact = EVENTS[row.get("event_id") or row["near_event_id"]]
        names = (fact["subject"], *fact.get("subject_aliases", ()))
        assert any(name in row["question"] for name in names), row


def test_questions_out_of_scope_ask_for_no_fact_of_their_subject() -> None:
    asking = {(kind.name, r.noun): r.asking for kind in gate_data.kinds() for r in kind.relations}
    for row in ASKED:
        if row.get("kind") == "same_subject":
            fact = EVENTS[row["near_event_id"]]
            names = (fact["subject"], *fact.get("subject_aliases", ()))
            own = asking[fact["id"].split("-")[1], fact["relation"]]
            stored = {text.replace("{s}", name) for text in own for name in names}
            assert row["question"] not in stored


def test_the_same_seed_gives_the_same_rows() -> None:
    assert gate_data.everyday(3, worlds=1) == ROWS
    assert gate_data.everyday(4, worlds=1) != ROWS
