"""Misquotes: which facts are asked for, and how answers are counted with and without the guard."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.engine.stub import StubEngine
from lte_runtime.answer.scope.gate import lexical_calibration
from lte_runtime.types import Answer, GateDecision, Scope
from ops.lab.evals import fidelity, unseen_facts
from ops.lab.evals.fidelity import MISQUOTED, NEITHER, QUOTED, Outcome
from ops.lab.evals.unseen_facts import KINDS, AskedFact

FACT = AskedFact("names", (), "What is the capital of Kazakhstan?", ("Astana",), ("Kazakhstan",))
SET = replace(FACT, kind="lists", values=("Astana", "Almaty"))


def test_facts_are_seeded_and_of_all_kinds() -> None:
    facts, beside = unseen_facts.draw(35, seed=1)
    assert (facts, beside) == unseen_facts.draw(35, seed=1)
    assert facts != unseen_facts.draw(35, seed=2)[0]
    assert [fact.kind for fact in facts] == [*KINDS] * 5
    assert len(beside) > len(facts)
    events = [*beside, *(event for fact in facts for event in fact.events)]
    assert len({event["id"] for event in events}) == len(events)
    targets = {event["target"] for event in events}
    for fact in facts:
        assert set(fact.values) <= targets
        assert fact.names[0] in fact.question
    assert any(len(fact.values) > 1 for fact in facts)


@pytest.mark.parametrize(
    ("text", "fact", "verdict"),
    [
        ("It is Astana.", FACT, QUOTED),
        ("Astra", FACT, MISQUOTED),
        ("Asta", FACT, MISQUOTED),
        ("The capital of Kazakhstan", FACT, NEITHER),
        ("Bishkek", FACT, NEITHER),
        ("Almaty and Astana", SET, QUOTED),
        ("Astana", SET, NEITHER),
        ("Almaty, Astra", SET, MISQUOTED),
    ],
)
def test_an_answer_quotes_misquotes_or_speaks_of_something_else(
    text: str, fact: AskedFact, verdict: str
) -> None:
    assert fidelity.judged(text, fact) == verdict


def test_both_sides_come_from_the_same_answers() -> None:
    outcomes = [
        Outcome(FACT, answer("Astana", "Astra"), True, QUOTED, MISQUOTED),
        Outcome(SET, answer("Bishkek"), True, NEITHER, NEITHER),
        Outcome(FACT, answer("Astana"), True, QUOTED, QUOTED),
        Outcome(FACT, answer("A city."), False, NEITHER, NEITHER),
    ]
    figures = fidelity.by_kind(outcomes)
    assert list(figures) == ["all", "names", "lists"]
    everything = figures["all"]
    assert (everything["n"], everything["cited"], everything["corrected"]) == (4, 0.75, 0.25)
    assert (everything["served"]["quoted"], everything["served"]["misquoted"]) == (0.5, 0.0)
    assert (everything["free"]["quoted"], everything["free"]["misquoted"]) == (0.25, 0.25)
    assert everything["free"]["misquotes"][0]["said"] == "Astra"
    assert [line["said"] for line in everything["unlike"]] == ["Bishkek"]
    assert figures["lists"]["free"]["misquoted"] == 0.0


def answer(text: str, free_text: str = "") -> Answer:
    gate = GateDecision(Scope.EDITED, 1.0, 0.5, "")
    return Answer(text, Scope.EDITED, (), None, {}, gate, "stop", {}, "exact", corrected_from=free_text)


def test_made_up_facts_are_asked_through_the_real_way_of_a_question() -> None:
    encoder, engine = StubEncoder(), StubEngine()
    calibration = lexical_calibration(encoder.fingerprint)
    result = fidelity.run(encoder, engine, calibration, methods=["ours"], count=14, seed=0)
    engine.close()
    everything = result["methods"]["ours"]["sets"]["all"]
    assert (everything["n"], everything["corrected"]) == (14, 0.0)
    assert everything["cited"] > 0.8
    assert everything["served"]["quoted"] == everything["free"]["quoted"] == everything["cited"]
    assert everything["served"]["misquotes"] == []
