"""Facts with their neighbours, and what the base model knows: what cases are drawn from. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random

import numpy as np

from lte_runtime.align.data.facts import FactRecord
from lte_runtime.facts.keys import statement_of
from lte_runtime.names.normalise import key_form
from lte_runtime.types import Vectors

NEAR = 8
_LOOKED_AT = 64
"""The nearest that are looked through for other subjects: one subject may have many facts."""
_CHUNK = 512

Near = Callable[[Sequence[FactRecord]], Sequence[Sequence[int]]]
"""For each fact the places of its nearest facts with another subject, nearest first."""


@dataclass(frozen=True, slots=True)
class KnownFact:
    """A fact that the base model was asked for and answered right, with every wording of its question."""

    relation: str
    subject: str
    answer: str
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Pool:
    """Facts of one source with their neighbours."""

    facts: tuple[FactRecord, ...]
    near: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, facts: Sequence[FactRecord], near: Near) -> Pool:
        return cls(tuple(facts), tuple(map(tuple, near(facts))))

    @cached_property
    def by_subject(self) -> dict[str, tuple[FactRecord, ...]]:
        by_name: dict[str, list[FactRecord]] = defaultdict(list)
        for fact in self.facts:
            for name in (fact.subject, *fact.subject_aliases):
                by_name[key_form(name)].append(fact)
        return {name: tuple(facts) for name, facts in by_name.items() if name}

    @cached_property
    def chains(self) -> tuple[tuple[int, FactRecord], ...]:
        """Places of facts whose target is the subject of another fact, with that fact."""
        return tuple(
            (place, after)
            for place, fact in enumerate(self.facts)
            for after in self.by_subject.get(key_form(fact.target), ())
            if fact.relation and after.relation and after.subject != fact.subject
        )

    @cached_property
    def aliased(self) -> tuple[int, ...]:
        """Places of the facts whose subject has an alias."""
        return tuple(place for place, fact in enumerate(self.facts) if fact.subject_aliases)

    @cached_property
    def worded(self) -> tuple[int, ...]:
        """Places of the facts told in words of their own: every model reads the form made from the parts."""
        return tuple(
            place
            for place, fact in enumerate(self.facts)
            if fact.statement != statement_of(fact.subject, fact.relation, fact.prompt, fact.target)
        )

    @cached_property
    def by_target(self) -> dict[str, tuple[int, ...]]:
        """Places of the facts with a relation, by what they lead to."""
        by_target: dict[str, list[int]] = defaultdict(list)
        for place, fact in enumerate(self.facts):
            if fact.relation:
                by_target[fact.target].append(place)
        return {target: tuple(places) for target, places in by_target.items()}

    def single_subject(self, fact: FactRecord) -> bool:
        """Whether no other fact has this relation and target."""
        pair = (key_form(fact.relation), key_form(fact.target))
        return self._pairs[pair] == 1

    @cached_property
    def _pairs(self) -> dict[tuple[str, str], int]:
        counted: dict[tuple[str, str], int] = defaultdict(int)
        for fact in self.facts:
            counted[key_form(fact.relation), key_form(fact.target)] += 1
        return counted

    def neighbours(self, place: int, count: int, rng: Random) -> list[FactRecord]:
        """`count` of the nearest facts, the nearest likelier than the others."""
        near = list(self.near[place])
        chosen: list[FactRecord] = []
        while near and len(chosen) < count:
            drawn = min(int(rng.expovariate(0.7)), len(near) - 1)
            chosen.append(self.facts[near.pop(drawn)])
        return chosen


def by_vectors(encode: Callable[[Sequence[str]], Vectors]) -> Near:
    """Neighbours by a sentence encoder (unit vectors [n, dimension]) over the facts' target-free views."""

    def near(facts: Sequence[FactRecord]) -> Sequence[Sequence[int]]:
        vectors = encode([fact.view for fact in facts])
        nearest: list[Sequence[int]] = []
        for start in range(0, len(facts), _CHUNK):
            scores = vectors[start : start + _CHUNK] @ vectors.T
            nearest += [_nearest(facts, start + row, scores[row]) for row in range(len(scores))]
        return nearest

    return near


def by_words(facts: Sequence[FactRecord]) -> Sequence[Sequence[int]]:
    """Neighbours by shared words of the views: for small sets, and where there is no encoder."""
    words = [frozenset(key_form(fact.view).split()) for fact in facts]
    return [
        _nearest(facts, place, np.array([len(own & other) / len(own | other or {""}) for other in words]))
        for place, own in enumerate(words)
    ]


def _nearest(facts: Sequence[FactRecord], place: int, scores: Vectors) -> list[int]:
    subject = key_form(facts[place].subject or facts[place].prompt)
    best = np.argpartition(-scores, min(_LOOKED_AT, len(scores)) - 1)[:_LOOKED_AT]
    others = [
        int(other)
        for other in best[np.argsort(-scores[best], kind="stable")]
        if other != place and key_form(facts[other].subject or facts[other].prompt) != subject
    ]
    return others[:NEAR]
