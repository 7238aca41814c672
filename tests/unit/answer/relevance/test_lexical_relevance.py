"""Relevance by shared words, and the cache before any relevance model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from lte_runtime.answer.relevance.cache import CachedRelevance
from lte_runtime.answer.relevance.lexical import LexicalRelevance
from lte_runtime.answer.relevance.protocol import ASKS, BEYOND, EARLIER, HEADS
from lte_runtime.types import Vectors


@pytest.mark.parametrize(
    ("question", "likely"),
    [
        ("What is the price of it?", ASKS),
        ("Tell me the price of it", ASKS),
        ("What was the previous price of it?", EARLIER),
        ("What is the currency of the price of it?", BEYOND),
        ("Who leads it?", None),
        ("What is not the price of it?", None),
        ("Is the price of it before May?", None),
    ],
)
def test_words_tell_what_is_asked(question: str, likely: int | None) -> None:
    (row,) = LexicalRelevance().odds([(question, "The price of it")])
    assert [head for head in range(HEADS) if row[head] > 0] == ([] if likely is None else [likely])


class Counting:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[str, str], ...]] = []

    def odds(self, pairs: Sequence[tuple[str, str]]) -> Vectors:
        self.calls.append(tuple(pairs))
        return np.array([[len(question), len(view), 0.0] for question, view in pairs], np.float32)


def test_a_pair_is_read_once_and_long_ones_are_not_kept() -> None:
    relevance = Counting()
    cached = CachedRelevance(relevance, size=2)
    long = ("x" * 1_000, "view")
    first = cached.odds([("a", "v"), long, ("a", "v")])
    assert first[:, 0].tolist() == [1.0, 1_000.0, 1.0]
    cached.odds([("a", "v"), long])
    assert relevance.calls == [(("a", "v"), long), (long,)]


def test_the_pairs_used_least_recently_are_dropped() -> None:
    relevance = Counting()
    cached = CachedRelevance(relevance, size=2)
    for pair in (("a", "v"), ("b", "v"), ("a", "v"), ("c", "v"), ("b", "v")):
        cached.odds([pair])
    assert [call[0][0] for call in relevance.calls] == ["a", "b", "c", "b"]
