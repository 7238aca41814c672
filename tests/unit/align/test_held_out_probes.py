"""Probes made from facts: seeded, of three kinds, each with what makes it right."""

from __future__ import annotations

from random import Random

from lte_runtime.align.data.facts import invented
from lte_runtime.align.job import probes

FACTS = invented(Random(0), "e")


def test_probes_ask_for_the_facts_and_for_what_must_not_change() -> None:
    made = probes.make(FACTS, 0, most=6)
    assert made == probes.make(FACTS, 0, most=6)
    kinds = [probe.kind for probe in made]
    assert kinds.count("edit_success") == kinds.count("generality") == kinds.count("locality") == 6
    statements = {fact.statement: fact for fact in FACTS}
    for probe in made:
        fact = statements[probe.facts[0]]
        if probe.kind == "locality":
            assert probe.answers is None
            assert fact.subject not in probe.question
        else:
            assert probe.answers == (fact.target,)
            assert fact.subject.lower() in probe.question.lower()
    questions = [probe.question for probe in made if probe.kind == "edit_success"]
    assert not set(questions) & {probe.question for probe in made if probe.kind == "generality"}
