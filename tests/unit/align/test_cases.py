"""Each kind of case: what the facts say, what is asked, what the answer must be."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest

from lte_runtime.align.data import cases, wordings
from lte_runtime.align.data.cases import Case, CaseKind, World
from lte_runtime.align.data.facts import FactRecord, invented
from lte_runtime.align.data.pools import KnownFact, Pool, by_words

KNOWN = tuple(
    KnownFact(
        "capital", country, city, (f"What is the capital of {country}?", f"The capital of {country} is")
    )
    for country, city in (("France", "Paris"), ("Spain", "Madrid"), ("Norway", "Oslo"))
)


def world(seed: int, exchange: float = 0.0) -> World:
    return World(Pool.of(invented(Random(seed), "e"), by_words), known_facts=KNOWN, exchange=exchange)


def drawn(kind: CaseKind, count: int = 40, exchange: float = 0.0) -> list[tuple[Case, World]]:
    found = []
    for seed in range(400):
        made = cases.make(Random(seed), kind, here := world(seed % 25, exchange))
        if made is not None:
            found.append((made, here))
        if len(found) == count:
            return found
    raise AssertionError(f"only {len(found)} of {kind}")


def facts_of(case: Case, here: World) -> list[FactRecord]:
    return [fact for fact in here.pool.facts if fact.edit_id in case.edit_ids]


@pytest.mark.parametrize("kind", list(CaseKind))
def test_equal_seeds_make_equal_cases(kind: CaseKind) -> None:
    here = world(3)
    assert [cases.make(Random(n), kind, here) for n in range(5)] == [
        cases.make(Random(n), kind, here) for n in range(5)
    ]


@pytest.mark.parametrize(
    "kind",
    [
        CaseKind.VERBATIM,
        CaseKind.REPHRASED,
        CaseKind.ALIAS,
        CaseKind.TWO_HOPS,
        CaseKind.VERSIONS,
        CaseKind.LISTED,
        CaseKind.FORMER,
        CaseKind.INSTRUCTED,
    ],
)
def test_what_is_in_scope_is_told_by_a_fact(kind: CaseKind) -> None:
    for case, _ in drawn(kind):
        assert case.answer
        assert any(case.answer in told for told in case.facts)
        assert case.edit_ids


@pytest.mark.parametrize(
    "kind", [CaseKind.SAME_SUBJECT, CaseKind.NEIGHBOUR, CaseKind.UNRELATED, CaseKind.LANGUAGE]
)
def test_what_is_out_of_scope_has_the_models_own_answer(kind: CaseKind) -> None:
    for case, _ in drawn(kind):
        assert case.answer is None
        assert case.facts


def test_distractors_are_none_one_or_two_of_other_subjects_by_half_and_quarters() -> None:
    made = drawn(CaseKind.VERBATIM, 400)
    counts = Counter(len(case.facts) for case, _ in made)
    assert counts[1] / 400 == pytest.approx(0.5, abs=0.08)
    assert counts[2] / 400 == pytest.approx(0.25, abs=0.07)
    for case, here in made:
        told = facts_of(case, here)
        right = next(f for f in told if f.target == case.answer and f.subject in case.question)
        assert [fact for fact in told if fact.subject == right.subject] == [right]


def test_most_prompts_are_best_first() -> None:
    made = [case for case, _ in drawn(CaseKind.VERBATIM, 400) if len(case.facts) > 1]
    first = [case for case in made if case.answer is not None and case.answer in case.facts[0]]
    assert 0.75 < len(first) / len(made) < 1.0
    assert 0.1 < sum(case.shuffled for case in made) / len(made) < 0.3
    assert all(case in first for case in made if not case.shuffled)


def test_an_alias_is_asked_and_explained() -> None:
    for case, here in drawn(CaseKind.ALIAS):
        fact = next(fact for fact in facts_of(case, here) if fact.target == case.answer)
        used = [alias for alias in fact.subject_aliases if alias in case.question]
        assert used
        assert any("is also known as" in told and used[0] in told for told in case.facts)


def test_two_hops_need_two_facts() -> None:
    for case, here in drawn(CaseKind.TWO_HOPS):
        named = [fact for fact in facts_of(case, here) if fact.subject in case.question]
        last = [fact for fact in facts_of(case, here) if fact.target == case.answer]
        assert named
        assert last
        assert {fact.target for fact in named} & {fact.subject for fact in last}
        assert case.answer not in case.question


def test_a_composed_question_names_what_the_edit_leads_to_nowhere() -> None:
    answers = {known.subject: known.answer for known in KNOWN}
    for case, _ in drawn(CaseKind.COMPOSED):
        subject = next(name for name, answer in answers.items() if answer == case.answer)
        assert subject not in case.question
        assert any(subject in told for told in case.facts)
        assert not any(str(case.answer) in told for told in case.facts)


def test_a_live_fact_about_a_known_thing_is_composed_as_it_is() -> None:
    fact = FactRecord("e9", "Bravex", "host country", "France", "The host country of Bravex is France.")
    here = World(Pool.of([fact], by_words), known_facts=KNOWN[:1])
    made = cases.make(Random(1), CaseKind.COMPOSED, here)
    assert made is not None
    assert (made.facts, made.answer, made.exchanged) == ((fact.statement,), "Paris", False)


def test_a_reversed_question_asks_for_the_subject() -> None:
    for case, here in drawn(CaseKind.REVERSED, 15):
        fact = next(fact for fact in facts_of(case, here) if fact.subject == case.answer)
        assert fact.target in case.question
        assert wordings.turns_round(fact.relation)
        assert str(case.answer) not in case.question


def test_of_two_versions_the_current_one_is_the_answer() -> None:
    for case, here in drawn(CaseKind.VERSIONS):
        told = [text for text in case.facts if str(case.answer) in text]
        marks = ("Formerly", "No longer", "Outdated", "corrected later", "Earlier version")
        assert any(not any(mark in text for mark in marks) for text in told)
        dated = [text for text in case.facts if re.match(r"As of \d", text)]
        if dated:
            assert str(case.answer) in max(dated)
        assert len(case.facts) >= 2
        assert facts_of(case, here)


def test_an_instruction_in_a_fact_changes_no_answer() -> None:
    plain = {fact.statement for seed in range(25) for fact in world(seed).pool.facts}
    for case, here in drawn(CaseKind.INSTRUCTED):
        assert any(told not in plain for told in case.facts)
        assert case.answer in {fact.target for fact in facts_of(case, here)}


def test_an_exchanged_target_is_not_the_live_one() -> None:
    made = drawn(CaseKind.VERBATIM, 60, exchange=1.0)
    exchanged = [(case, here) for case, here in made if case.exchanged]
    assert len(exchanged) > 50
    for case, here in exchanged:
        asked = [
            f for f in facts_of(case, here) if f.subject in case.question and f.relation in case.question
        ]
        assert case.answer not in {fact.target for fact in asked}


def test_a_neighbours_question_is_about_no_fact_told() -> None:
    for case, _ in drawn(CaseKind.NEIGHBOUR):
        named = next((known for known in KNOWN if known.subject in case.question), None)
        if named is not None:
            assert not any(named.subject in told for told in case.facts)


def test_a_world_without_facts_makes_nothing() -> None:
    assert all(cases.make(Random(0), kind, World(Pool((), ()))) is None for kind in CaseKind)


def test_another_relation_is_asked_of_a_subject_written_in_any_way() -> None:
    """All relations stored for the subject count, not those of facts spelled alike alone."""
    told = "The owner of the Źródło is Ann."
    stored = [
        FactRecord("e1", "Źródło", "owner", "Ann", told),
        *(FactRecord(f"n{n}", "ŹRÓDŁO", noun, "x", "x.") for n, (noun, _) in enumerate(cases.NOUN_KINDS)),
    ]
    here = World(Pool.of(stored, by_words))
    assert all(cases.make(Random(n), CaseKind.SAME_SUBJECT, here) is None for n in range(40))


def test_of_a_list_every_member_is_the_answer() -> None:
    for case, _ in drawn(CaseKind.LISTED):
        assert case.answer
        assert ", " in case.answer
        assert any(re.search(r"\(list of [234]\) of .+ is ", t) and case.answer in t for t in case.facts)


def test_a_former_value_is_called_so_and_the_later_one_is_told_nowhere() -> None:
    for case, here in drawn(CaseKind.FORMER):
        assert len(case.facts) == 1
        assert "(This is a former value, " in case.facts[0]
        assert re.search(r"\b(before|Before|previous|former|earlier)\b", case.question)
        (fact,) = facts_of(case, here)
        assert case.answer == fact.target


def test_a_question_of_today_is_turned_back() -> None:
    fact = FactRecord("e1", "Bravex", "seat", "Oslo", "The seat of Bravex is Oslo.")
    questions = wordings.Wordings({"seat": ("Where is {s} based?",)}).former(fact, "Rome")
    assert {"Where was Bravex based before Rome?", "Where was Bravex based before?"} <= set(questions)


def test_facts_are_told_as_serving_tells_them() -> None:
    fact = FactRecord("e1", "Bravex", "seat", "Oslo", "Bravex sits in Oslo.")
    here = World(Pool.of([fact], by_words), alone=1.0)
    case = cases.make(Random(1), CaseKind.VERBATIM, here)
    assert case is not None
    assert case.facts == ("The seat of Bravex is Oslo. Bravex sits in Oslo.",)
