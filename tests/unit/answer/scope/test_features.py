"""What the gate sees of a question: names found and taken out, and signs of another wish."""

from __future__ import annotations

import pytest

from lte_runtime.answer.scope import features as f
from lte_runtime.names.mention import Mentions


def test_masking_leaves_the_rest_of_the_question() -> None:
    question = "Who runs Nordwind Cargo in Oslo?"
    spans = f.anchors(question)
    assert [question[a:b] for a, b in spans] == ["Nordwind Cargo", "Oslo"]
    assert f.mask(question, spans) == "Who runs it in it?"


@pytest.mark.parametrize(
    ("question", "name", "view", "longer"),
    [
        ("Who leads Acme?", "Acme", "The leader of it", False),
        ("Who leads Acme Labs?", "Acme", "The leader of it", True),
        ("Who leads New Acme?", "Acme", "The leader of it", True),
        ("Acme CEO", "Acme", "The CEO of it", False),
        ("What weighs Acme 2?", "Acme", "The weight of it", True),
    ],
)
def test_a_longer_name_is_another_name(question: str, name: str, view: str, longer: bool) -> None:
    mention = Mentions(question).of(name)
    assert mention is not None
    assert f.extended(question, mention, view) == float(longer)


def test_foreign_names_count_by_their_share() -> None:
    question = "Does Ida Krog work at Acme?"
    mention = Mentions(question).of("Acme")
    assert f.foreign(question, mention, ("The employees of Acme",)) == pytest.approx(2 / 3)
    assert f.foreign(question, mention, ("The work of Ida Krog at Acme",)) == 0.0


@pytest.mark.parametrize(
    ("text", "negated"),
    [
        ("Who does not lead it?", True),
        ("Who isn't paid?", True),
        ("who no longer leads it", True),
        ("Who leads it?", False),
    ],
)
def test_negation(text: str, negated: bool) -> None:
    assert f.negated(text) is negated


@pytest.mark.parametrize(
    ("question", "view", "turned"),
    [
        ("it follows", "it is followed by", True),
        ("What is it followed by?", "it follows", True),
        ("What does it own?", "Who is it owned by?", True),
        ("What is owned by it?", "The owned by of it", True),
        ("What does it own?", "The owner of it", True),
        ("Whom does it manage?", "The manager of it", True),
        ("Which river does it cross?", "it is crossed by", True),
        ("it is followed by", "it is followed by", False),
        ("Who owns it?", "it is owned by", False),
        ("Who was it founded by?", "Who founded it?", False),
        ("Who is it managed by?", "The manager of it", False),
        ("Whom does it have as manager?", "The manager of it", False),
        ("By whom was it directed?", "it was directed by", False),
        ("In which year was it founded?", "it was founded by", False),
        ("Where is it located?", "The location of it", False),
        ("How much does it cost?", "The cost of it", False),
        ("How much does it cost per seat?", "it is performed by", False),
        ("it's father, who is this?", "The father of it is whom?", False),
    ],
)
def test_a_verb_turned_around(question: str, view: str, turned: bool) -> None:
    assert f.turned(question, view) is turned
    assert f.turned(view, question) is turned


@pytest.mark.parametrize(
    ("question", "view", "asked"),
    [
        ("Who conducts it?", "The conductor of it", "Who is the conductor of it?"),
        ("Who leads the it?", "The team lead of it", "Who is the lead of it?"),
        ("Which company hosts it?", "The host of it", "Which company is the host of it?"),
        ("Who managed it?", "The manager of it", None),
        ("Who hosts it?", "The hosting provider of it", None),
        ("Who leads the maker of it?", "The leader of it", None),
        ("Who fathers it?", "Who is the father of it?", None),
    ],
)
def test_a_verb_asks_for_its_noun(question: str, view: str, asked: str | None) -> None:
    assert f.nominal(question, view) == asked


def test_the_wanted_kind_of_answer_is_compared_with_the_target() -> None:
    assert f.kind_clash("When did it open?", "Anna Berg") == 1.0
    assert f.kind_clash("When did it open?", "4 May 2024") == 0.0
    assert f.kind_clash("Who opened it?", "4 May 2024") == 1.0
    assert f.kind_clash("Where is it?", "Oslo") == 0.0


def test_one_word_exchanged_in_the_same_sentence() -> None:
    assert f.swapped("The father of it is", "The mother of it is") > 0.7
    assert f.swapped("The father of it is", "The father of it is") == 0.0
    assert f.mentioned(f.words("The father of it, which is not Bo Lie, is"), "Bo Lie") == 1.0
