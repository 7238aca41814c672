"""Facts read from every form, refused with the line that is wrong, and invented ones."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from random import Random

import pytest

from lte_runtime.align.data import facts
from lte_runtime.errors import BadRequest


def test_events_and_facts_are_read_from_json_lines(tmp_path: Path) -> None:
    rows = [
        {"id": "e1", "op": "assert", "subject": "Bravex", "relation": "owner", "target": "Tolmin"}
        | {"subject_aliases": ["BVX"], "source": {"publisher": "feed"}},
        {"op": "retract", "subject": "Bravex", "relation": "price"},
        {"event": {"prompt": "Who leads Bravex?", "target": "Ann"}, "question": "?"},
    ]
    path = tmp_path / "facts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    first, second = facts.load(path)
    assert (first.edit_id, first.statement) == ("e1", "The owner of Bravex is Tolmin.")
    assert (first.subject_aliases, first.publisher, first.source) == (("BVX",), "feed", "edits")
    assert second.statement == "Who leads Bravex? Ann."
    assert second.edit_id.startswith("fact-")
    assert facts.load(path, "replay")[0].source == "replay"


def test_written_facts_are_read_again_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    made = facts.invented(Random(0), "e")
    path.write_text("".join(json.dumps(asdict(fact)) + "\n" for fact in made))
    assert facts.load(path, "invented") == made


def test_records_in_knowedits_form_give_relation_and_rephrasing(tmp_path: Path) -> None:
    records = [
        {"subject": "Bravex", "prompt": "The name of the owner of Bravex is", "target_new": "Tolmin"},
        {"subject": "Bravex", "prompt": "Who leads Bravex?", "target_new": "Ann"}
        | {"rephrase_prompt": "Bravex is led by?"},
    ]
    path = tmp_path / "set.json"
    path.write_text(json.dumps(records))
    first, second = facts.load(path)
    assert (first.relation, first.statement) == ("owner", "The name of the owner of Bravex is Tolmin.")
    assert (second.relation, second.rephrased) == ("", ("Bravex is led by?",))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no fact"),
        ('{"subject": "a", "relation": "b"}', "line 1"),
        ('{"subject": "a", "relation": "b", "target": "c"}\nnot json', "line 2"),
        ("[1]", "list of records"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(text)
    with pytest.raises(BadRequest, match=told):
        facts.load(path)


def test_another_target_changes_the_statement_where_it_stands_once() -> None:
    fact = facts.FactRecord("e", "Bravex", "owner", "Tolmin", "Tolmin owns Bravex.")
    made = fact.with_target("Ann")
    assert made is not None
    assert (made.target, made.statement) == ("Ann", "Ann owns Bravex.")
    twice = facts.FactRecord("e", "Bravex", "owner", "Tolmin", "Tolmin, yes Tolmin.")
    assert twice.with_target("Ann") is None


@pytest.mark.parametrize("seed", range(20))
def test_invented_facts_tell_their_targets_and_repeat_by_seed(seed: int) -> None:
    made = facts.invented(Random(seed), "x")
    assert made == facts.invented(Random(seed), "x")
    assert len({fact.edit_id for fact in made}) == len(made) >= 9
    for fact in made:
        assert fact.target in fact.statement
        assert fact.source == "invented"
