"""Questions of facts: written for relations, learnt from rephrasings, never the verbatim ones again."""

from __future__ import annotations

from dataclasses import replace

from lte_runtime.align.data import wordings
from lte_runtime.align.data.facts import FactRecord
from lte_runtime.align.data.wordings import Wordings

OWNER = FactRecord("e1", "Bravex", "owner", "Tolmin", "Tolmin owns Bravex.")
ASKED = FactRecord("e2", "Bravex", "", "Ann", "Who leads Bravex? Ann.", prompt="Who leads Bravex?")


def test_rephrasings_name_the_subject_and_are_not_verbatim() -> None:
    made = Wordings().rephrased(OWNER)
    assert "Who owns Bravex?" in made
    assert len(made) > 8
    assert all("bravex" in text.lower() for text in made)
    assert not set(made) & set(Wordings().verbatim(OWNER))


def test_an_alias_takes_the_subjects_place() -> None:
    made = Wordings().rephrased(OWNER, "the Old Mill")
    assert made
    assert all("the Old Mill" in text and "Bravex" not in text for text in made)


def test_a_rephrasing_is_learnt_for_all_facts_of_the_same_form() -> None:
    taught = replace(ASKED, rephrased=("Bravex is led by whom?",))
    other = replace(ASKED, subject="Calder", prompt="Who leads Calder?")
    learnt = Wordings.of([taught])
    assert learnt.rephrased(other) == ("Calder is led by whom?",)
    assert Wordings.of([OWNER]).learnt == {}


def test_a_prompt_without_known_wordings_is_asked_in_a_polite_frame() -> None:
    made = Wordings().rephrased(ASKED)
    assert made
    assert all("Who leads Bravex?" in text and text != "Who leads Bravex?" for text in made)


def test_who_is_asked_for_persons_and_what_for_the_rest() -> None:
    assert wordings.two_hops("{w} is the {b} of the {a} of {s}?", OWNER, "founder").startswith("Who is")
    assert wordings.two_hops("{w} is the {b} of the {a} of {s}?", OWNER, "price").startswith("What is")


def test_only_relations_that_name_one_thing_turn_round() -> None:
    assert wordings.turns_round("owner")
    assert not wordings.turns_round("price")
    assert not wordings.turns_round("unheard of")


def test_other_relations_of_a_subject_are_of_its_kind_and_language() -> None:
    nouns = [relation.noun for relation in wordings.other_relations("Eigentümer")]
    assert {"Hauptsitz", "Gründer"} <= set(nouns)
    assert not {"Eigentümer", "founder", "Geburtsort"} & set(nouns)
    assert nouns.count("Gründer") == 2, "its values are people too: the hardest to tell apart"
    assert wordings.other_relations("no such relation") == ()
