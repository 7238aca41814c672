"""Questions about an earlier value ("the previous owner", "the office before Leiden"): which one. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from lte_runtime.names.mention import Mention, Mentions
from lte_runtime.types import Citation, Fact, Former

REASON, UNKNOWN = "the question asks for an earlier value", "no earlier value is known"


def earlier(question: str, name: Mention, current: Fact, former: Sequence[Former]) -> tuple[Former, ...]:
    """The values, newest first, that came before the one that the question names, else before the current.

    `name` is the subject's place.
    """
    mentions = Mentions(question)
    values = [(current, 0), *((v.fact, place) for place, v in enumerate(former, 1))]
    named = [
        (mention.end - mention.start, -first)
        for fact, first in values
        for value in (fact.target, *fact.target_aliases)
        if (mention := mentions.of(value)) and mention.named and not mention.overlaps(name.start, name.end)
    ]
    _, first = max(named, default=(0, 0))
    return tuple(former[-first:])


def citations(values: Sequence[Former], score: float) -> tuple[Citation, ...]:
    """Evidence of an answer about earlier values."""
    return tuple(
        Citation(v.fact, score, 1, superseded=True, held_from=v.held_from, held_until=v.held_until)
        for v in values
    )
