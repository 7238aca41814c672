"""The training stream: seeded, silent on withheld families and on the facts of the demo and the tests."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from lte_runtime.align.stock.relations import NOUN_KINDS, WITHHELD_FAMILIES, WORDED_RELATIONS, withheld
from lte_runtime.align.stock.sources import Sources, load
from lte_runtime.align.stock.split import held_out
from ops.lab.recipes import lessons
from ops.lab.recipes.chains import composed
from ops.lab.recipes.exclude import Excluded, excluded, plain
from ops.lab.recipes.generator import MAKERS, Generator, row_text
from ops.lab.recipes.recipe import mixture
from ops.lab.recipes.rows import FIRST_ID, PLACE, VOCABULARY

ROOT = Path(__file__).parents[4]
EVENTS = [ROOT / "ops" / "demo" / "events.jsonl", *sorted((ROOT / "tests" / "data").glob("*.jsonl"))]
KINDS = [kind for kind in MAKERS if kind not in ("text", "open")]


def sources() -> Sources:
    """What ships with the project: the stock alone."""
    return load(None)


@pytest.fixture(scope="module")
def rows() -> list[str]:
    generator = Generator(sources(), excluded(EVENTS))
    drawn = [generator.rows(random.Random(share), mixture(share), 2000) for share in (0.0, 0.3, 0.9)]
    return [row_text(row) for part in drawn for row in part]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_rows(kind: str) -> None:
    generator = Generator(sources())
    first, second, other = (generator.rows(random.Random(seed), ((kind, 1.0),), 20) for seed in (1, 1, 2))
    assert first == second
    assert first != other


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("repeat", "echo", "copy")])
def test_every_question_has_an_answer(kind: str) -> None:
    for row in Generator(sources()).rows(random.Random(3), ((kind, 1.0),), 50):
        assert row.turns
        assert all(turn.user.strip() and turn.answer.strip() for turn in row.turns)
        assert not any("{" in turn.user for turn in row.turns)


def test_repeated_values_are_those_of_the_lead() -> None:
    for row in Generator(sources()).rows(random.Random(6), (("repeat", 1.0),), 60):
        assert len(row.spans) >= 4
        assert all(row.text[start:stop] in row.lead for start, stop in row.spans)


def test_pieces_are_repeated_complete() -> None:
    for row in Generator(sources()).rows(random.Random(7), (("copy", 1.0),), 60):
        marks = [mark for mark in row.text if ord(mark) >= PLACE]
        assert set(marks) == {chr(PLACE + index) for index in range(len(row.pieces))}
        assert all(row.lead.count(mark) == 1 for mark in marks)
    rows = Generator(sources()).rows(random.Random(8), (("drill", 1.0),), 300)
    token_ids = {token_id for row in rows for piece in row.pieces for token_id in piece}
    assert min(token_ids) >= FIRST_ID
    assert max(token_ids) < VOCABULARY
    assert len(token_ids) > 1500


@pytest.mark.parametrize("kind", ["single", "reading", "recall", "lookup"])
def test_answers_stand_in_the_facts(kind: str) -> None:
    for row in Generator(sources()).rows(random.Random(4), ((kind, 1.0),), 100):
        assert all(plain(turn.answer) in plain(" ".join(row.facts)) for turn in row.turns)


def test_withheld_families_are_never_spoken_of(rows: list[str]) -> None:
    assert len(WITHHELD_FAMILIES) == 3
    assert not [text for text in rows if withheld(text)]
    nouns = [noun for noun, _ in NOUN_KINDS] + [relation.noun for relation in WORDED_RELATIONS]
    assert not [noun for noun in nouns if withheld(noun)]


def spoken() -> list[tuple[str, str, str]]:
    """(subject, target, statement) of every event of the demo and of the tests' data."""
    facts = []
    for path in EVENTS:
        for line in path.read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            event = event.get("event", event)
            if event.get("target"):
                subject = event.get("subject") or event.get("prompt", "")
                facts.append((subject, str(event["target"]), event.get("statement", "")))
    return facts


def test_no_fact_of_the_demo_or_of_a_test_is_in_the_stream(rows: list[str]) -> None:
    facts = spoken()
    assert len(facts) > 300
    texts = [f" {plain(text)} " for text in rows]
    for subject, target, statement in facts:
        pair = (f" {plain(subject)} ", f" {plain(target)} ")
        assert not [text for text in texts if pair[0] in text and pair[1] in text], (subject, target)
        assert not statement or not [text for text in texts if plain(statement) in text], statement


def test_no_fact_of_the_demo_or_of_a_test_is_in_the_stock() -> None:
    stock_pairs = {(plain(fact.subject), plain(fact.target)) for fact in sources().stock}
    assert len(stock_pairs) >= 2000
    assert not [fact for fact in spoken() if (plain(fact[0]), plain(fact[1])) in stock_pairs]


def test_excluded_finds_whole_words_only() -> None:
    index = Excluded({"bulgaria": ((" bulgaria ", " euro "),)})
    assert index.hit("The currency of Bulgaria is the Euro.")
    assert not index.hit("Bulgaria lies in Europe.")


def test_lessons_out_of_scope_keep_the_answer_of_the_base() -> None:
    generator = Generator(sources())
    own = {"What is the capital of Kenya?": "Nairobi"}
    examples = lessons.out_of_scope(generator, random.Random(5), own, 30)
    assert {example.answer for example in examples} == {"Nairobi"}
    assert {bool(example.facts) for example in examples} == {True, False}


def test_lessons_spell_pieces_and_leave_out_what_is_no_text() -> None:
    words = {(7,): " bal", (8, 9): "kin\ufffd"}
    assert lessons.spelled("The \ue000 of it", ((7,),), words.__getitem__) == "The bal of it"
    assert lessons.spelled("The \ue001 of it", ((7,), (8, 9)), words.__getitem__) == ""
    examples = lessons.in_scope(Generator(sources()), random.Random(1), 200, lambda ids: f"w{ids[0]}")
    assert len(examples) == 200
    questions = "".join(example.question for example in examples)
    assert not any(PLACE <= ord(char) < 0xF900 for char in questions)


def test_the_set_aside_half_is_stable_and_about_a_half() -> None:
    names = [f"subject {number}" for number in range(2000)]
    assert 850 < sum(map(held_out, names)) < 1150
    assert held_out("Łódź  City") == held_out("łódź city")


def test_the_target_of_a_chain_stands_in_its_facts_and_composed_ones_are_remembered() -> None:
    generator = Generator(sources())
    for row in generator.rows(random.Random(5), (("chain", 1.0),), 200):
        assert all(plain(turn.answer) in plain(" ".join(row.facts)) for turn in row.turns)
    stock = {fact.subject: fact for fact in sources().stock if composed(fact)}
    left_out = [fact for fact in sources().stock if not composed(fact)]
    assert 0.15 < len(left_out) / len(sources().stock) < 0.25
    for row in generator.rows(random.Random(6), (("compose", 1.0),), 200):
        middle = [subject for subject in stock if any(subject in fact for fact in row.facts)]
        assert middle
        assert row.turns[-1].answer in {fact.target for fact in sources().stock} | set(middle)
