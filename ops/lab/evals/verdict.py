"""How one answer is judged, the same in every evaluation. Pure.

A chat model speaks in sentences: exact match alone makes a reader that was not aligned look worse than it is.
So each answer is scored twice, and what it says beyond the fact is counted apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lte_runtime.scoring import contains, matches, normalise


@dataclass(frozen=True, slots=True)
class Verdict:
    """`exact`: the normalised answer is an accepted value.

    `contains`: such a value stands in it, between word boundaries, and no other candidate does.
    `adds`: an answer in which the value stands says more than was known, see `adds_words`; None for others.
    """

    exact: bool
    contains: bool
    adds: bool | None


Score = Callable[[Verdict], bool]


def exact(verdict: Verdict) -> bool:
    return verdict.exact


def contained(verdict: Verdict) -> bool:
    return verdict.contains


def judged(
    answer: str, accepted: Iterable[str], *, others: Iterable[str] = (), context: Iterable[str] = ()
) -> Verdict:
    """The verdict on an answer.

    `others` are values that are known to be wrong, such as the one before a counterfactual edit; `context`
    are the texts that the answer may repeat: the fact as it stands in the prompt, the question, names of its
    subject.
    """
    values = tuple(accepted)
    return Verdict(
        exact=matches(answer, values),
        contains=contains(answer, values, others),
        adds=adds_words(answer, (*values, *context)) if contains(answer, values) else None,
    )


def adds_words(answer: str, context: Iterable[str]) -> bool:
    """Whether the answer has a word that none of the texts has, after normalising: an invented addition.

    "The founder of Velmora is Ida Moen" adds nothing to that statement or to its question, "Ida Moen, a
    chemist" does. No word is exempt, so that no list of words decides: a pronoun counts as an addition too.
    """
    known = {word for text in context for word in normalise(text).split()}
    return not known.issuperset(normalise(answer).split())
