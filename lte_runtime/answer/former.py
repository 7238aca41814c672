"""Questions about an earlier value ("the previous owner", "the office before Leiden"), taken apart. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lte_runtime.answer.scope import features as f
from lte_runtime.names.mention import Mention, Mentions
from lte_runtime.types import Citation, Fact, Former

REASON, UNKNOWN = "the question asks for an earlier value", "no earlier value is known"
LIKELY = 0.5
"""The gate's probability from which a question in a fact's own words, but in the past tense, is about that
fact. The tense alone costs a good part of it, so that this lies below the calibrated threshold."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """The question without what points back, as one about the current value, and the values it asks for."""

    text: str
    values: tuple[Former, ...]


def earlier(
    question: str, name: Mention, current: Sequence[Fact], former: Sequence[Former]
) -> Earlier | None:
    """The values, newest first, that came before the one that the question names, else before the current.

    `name` is the subject's place. None where no word of the question points back, and where it asks whether
    the value is before another one ("Is the deadline before May?").
    """
    words, mentions = f.words(question), Mentions(question)
    back = [(word.start, word.end) for word in f.backward(words) if not _overlaps(word, name)]
    if not back:
        return None
    values = [*((fact, 0) for fact in current), *((v.fact, i) for i, v in enumerate(former, 1))]
    named = [
        (mention.end - mention.start, -first, first, mention)
        for fact, first in values
        for value in (fact.target, *fact.target_aliases)
        if (mention := mentions.of(value)) and mention.named and not _overlaps(mention, name)
    ]
    _, _, first, place = max(named, key=lambda candidate: candidate[:2], default=(0, 0, 0, None))
    if place is not None and f.asks_whether(words):
        return None
    spans = back if place is None else [*back, (place.start, place.end)]
    return Earlier(_without(question, spans), tuple(former[first:]))


def required_score(masked: str, plain: str, fact: Fact, view: str, threshold: float) -> float | None:
    """The gate's probability from which `plain`, which is `masked` without what points back, is about `fact`.

    Both texts are without the subject's name. None where what points back belongs to what is asked ("how
    old"), or where more is asked than the fact tells ("the former owner's car").
    """
    if f.kinds(masked, fact.target) != f.kinds(plain, fact.target):
        return None
    if not f.other_words(plain, view):
        return min(LIKELY, threshold)
    return threshold if len(f.content_words(plain)) == 1 else None


def citations(values: Sequence[Former], score: float) -> tuple[Citation, ...]:
    """Evidence of an answer about earlier values."""
    return tuple(
        Citation(v.fact, score, 1, superseded=True, held_from=v.held_from, held_until=v.held_until)
        for v in values
    )


def _overlaps(place: f.Word | Mention, name: Mention) -> bool:
    return name.overlaps(place.start, place.end)


def _without(text: str, spans: Sequence[tuple[int, int]]) -> str:
    for start, end in sorted(spans, reverse=True):
        text = text[:start].rstrip() + " " + text[end:].lstrip()
    return text.strip()
