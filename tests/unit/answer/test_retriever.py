"""What the retriever keeps of questions: texts without names, and those alone."""

from __future__ import annotations

from collections.abc import Sequence

from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.retriever import Retriever, VectorCache
from lte_runtime.answer.scope.gate import lexical_calibration
from lte_runtime.types import Question, Vectors
from ops.lab.scratch import memory_of

EVENT = {"op": "assert", "id": "a", "subject": "Ostrava Pumps", "relation": "price", "target": "9 EUR"}


class Counting(StubEncoder):
    """Remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[bool, tuple[str, ...]]] = []

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        self.calls.append((query, tuple(texts)))
        return super().encode(texts, query=query)


def test_a_question_is_encoded_each_time_and_its_form_once() -> None:
    encoder = Counting()
    with memory_of((EVENT,), encoder) as memory:
        retriever = Retriever(memory, encoder, lexical_calibration(encoder.fingerprint))
        asked = "What is the price of Ostrava Pumps?"
        first, again = (retriever.retrieve(Question(asked), None) for _ in range(2))
        queries = [text for query, texts in encoder.calls if query for text in texts]
    assert queries.count(asked) == 2
    assert len(queries) == 3
    assert (first.citations, first.gate) == (again.citations, again.gate)


def test_long_texts_are_not_kept() -> None:
    encoder = Counting()
    cache = VectorCache(encoder, 8)
    for _ in range(2):
        cache.of(["x" * 1000, "short"])
    assert [texts for _, texts in encoder.calls] == [("x" * 1000, "short"), ("x" * 1000,)]


def test_the_cache_drops_the_least_recently_used() -> None:
    encoder = Counting()
    cache = VectorCache(encoder, 2, query=True)
    cache.of(["a", "b"])
    cache.of(["a"])
    found = cache.of(["c"], once="whole")
    assert list(found) == ["c", "whole"]
    cache.of(["a", "c"])
    cache.of(["b", "whole"])
    assert encoder.calls == [(True, each) for each in (("a", "b"), ("c", "whole"), ("b", "whole"))]
