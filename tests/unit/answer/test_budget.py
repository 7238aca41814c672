"""Whatever a question says, each step of looking up its facts has a bound in work, and looks at the time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from lte_runtime.answer.budget import ENCODED_AT_ONCE, ENCODED_PIECES, Budget
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.excerpt import READ_CHARS, READ_PIECES, cut, pieces
from lte_runtime.answer.retriever import Retriever, VectorCache
from lte_runtime.answer.scope.gate import lexical_calibration
from lte_runtime.errors import Cancelled, DeadlineExceeded
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.names.mention import MOST_NAMES, Mentions
from lte_runtime.types import Question, Vectors
from ops.lab.scratch import memory_of

LONGEST = 8_192
HOSTILE = (
    "the it ",
    "it's ",
    "the thing that it which ",
    "the ",
    "n't ",
    "'s",
    "A",
    "Ab ",
    "7",
    "7 ",
    "a.",
    "+",
    "\u6771",
    "e\u0301",
    "\u0301",
    "\ufdfa",
    " ",
    "\n",
    "Tarn Osk ",
    "led by it ",
    "<|im_end|>",
)
EVENTS = (
    {"id": "a", "subject": "Tarn Osk", "relation": "maker", "target": "Vesby Works"},
    {"id": "b", "subject": "Vesby Works", "relation": "leader", "target": "Ida Krog"},
    {"id": "c", "subject": "Ida Krog", "relation": "home town", "target": "Arlen"},
)


class Counting(StubEncoder):
    """Counts the texts of each call and the pieces of questions."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []
        self.pieces = 0

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        self.calls.append(len(texts))
        self.pieces += sum(map(pieces, texts)) if query else 0
        return super().encode(texts, query=query)


@pytest.fixture(scope="module")
def memory() -> Iterator[EditMemory]:
    with memory_of([{"op": "assert", **event} for event in EVENTS], StubEncoder()) as filled:
        yield filled


@pytest.fixture
def encoder() -> Counting:
    return Counting()


@pytest.fixture
def retriever(memory: EditMemory, encoder: Counting) -> Retriever:
    return Retriever(memory, encoder, lexical_calibration(encoder.fingerprint))


def hostile(part: str) -> str:
    return ("What of Tarn Osk: " + part * LONGEST)[:LONGEST]


@pytest.mark.parametrize("part", HOSTILE)
def test_of_a_long_text_the_beginning_and_the_end_are_read(part: str) -> None:
    text = cut(hostile(part)[: LONGEST - 9] + " and then")
    assert len(text) <= READ_CHARS
    assert pieces(text) <= READ_PIECES + pieces(" ... ")
    assert text.startswith("What of Tarn Osk")
    assert text.endswith("then")


def test_a_usual_text_is_read_as_it_is() -> None:
    for text in ("", "  Who leads  Tarn Osk? ", "word " * READ_PIECES):
        assert cut(text) == text


@pytest.mark.parametrize("part", HOSTILE)
def test_no_question_encodes_more_than_its_share(part: str, retriever: Retriever, encoder: Counting) -> None:
    retriever.retrieve(Question(hostile(part)), None)
    assert 0 < encoder.pieces <= ENCODED_PIECES
    assert max(encoder.calls) <= ENCODED_AT_ONCE


def test_a_caller_who_goes_away_stops_the_work_between_two_steps(retriever: Retriever) -> None:
    asks = 0

    def gone_at(limit: int) -> int:
        nonlocal asks
        asks = 0

        def gone() -> bool:
            nonlocal asks
            asks += 1
            return asks > limit

        question = Question("What is the home town of the leader of the maker of Tarn Osk?")
        try:
            retriever.retrieve(question, None, budget=Budget(cancelled=gone))
        except Cancelled:
            return asks
        return 0

    assert [gone_at(limit) for limit in range(6)] == [1, 2, 3, 4, 5, 6]
    assert gone_at(1_000) == 0


def test_the_deadline_stops_the_work_between_two_calls_of_the_encoder(encoder: Counting) -> None:
    budget = Budget(deadline=2.5, now=lambda: float(len(encoder.calls)))
    texts = [f"text {number}" for number in range(10 * ENCODED_AT_ONCE)]
    with pytest.raises(DeadlineExceeded):
        VectorCache(encoder, 8).of(texts, check=budget.check)
    assert encoder.calls == [ENCODED_AT_ONCE] * 3


def test_a_budget_pays_for_a_text_once() -> None:
    budget = Budget(pieces=5)
    assert budget.afford("one two", "one two")
    assert budget.afford("one two")
    assert not budget.afford("some more texts yet")
    assert budget.affordable(["one two", "a b c d", "a b"]) == {"one two", "a b"}


def test_only_so_many_names_are_looked_for_in_a_question() -> None:
    mentions = Mentions("Who leads Tarn Osk?")
    for number in range(MOST_NAMES):
        assert mentions.of(f"Other {number}") is None
    assert mentions.of("Tarn Osk") is None
    assert Mentions("Who leads Tarn Osk?").of("Tarn Osk") is not None


def test_a_subject_of_many_relations_adds_so_many_facts_the_nearest_to_the_question() -> None:
    relations = [f"quite other figure {number}" for number in range(200)] + ["harbour dues"]
    events = [
        {"op": "assert", "id": f"e{place}", "subject": "Tarn Osk", "relation": relation, "target": f"{place}"}
        for place, relation in enumerate(relations)
    ]
    encoder = Counting()
    with memory_of(events, encoder) as memory:
        retriever = Retriever(memory, encoder, lexical_calibration(encoder.fingerprint))
        encoder.calls.clear()
        scored = retriever.scored_paths(Question("What are the harbour dues of Tarn Osk?"))
        cited = retriever.retrieve(Question("What are the harbour dues of Tarn Osk?"), None).citations
    assert len(scored) <= 64 + 24
    assert [citation.fact.relation for citation in cited] == ["harbour dues"]
