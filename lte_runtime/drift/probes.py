"""Questions with a known right answer, made from the current facts; a seeded sample each cycle. Pure.

Each kind is a reading of its own: pooled into one, a change of their mix would look like a change of quality.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import TypeVar

from lte_runtime.drift import readings as r
from lte_runtime.drift.readings import Reading
from lte_runtime.names.normalise import key_form
from lte_runtime.scoring import matches, normalise, same_answer
from lte_runtime.templates import templates
from lte_runtime.types import Fact, FactKey

OPTIONS = 4
_TEXTS = templates().probe

Item = TypeVar("Item")


class ProbeKind(StrEnum):
    VERBATIM = "verbatim"
    REPHRASED = "rephrased"
    ALIAS = "alias"
    TWO_HOP = "two_hop"
    LOCALITY = "locality"
    CHOICE = "choice"


READING = {
    ProbeKind.VERBATIM: r.EDIT_SUCCESS,
    ProbeKind.REPHRASED: r.GENERALITY,
    ProbeKind.ALIAS: r.ALIAS,
    ProbeKind.TWO_HOP: r.PORTABILITY,
    ProbeKind.LOCALITY: r.LOCALITY,
    ProbeKind.CHOICE: r.CHOICE,
}
QUOTA: Mapping[ProbeKind, int] = {
    ProbeKind.VERBATIM: 64,
    ProbeKind.REPHRASED: 32,
    ProbeKind.ALIAS: 16,
    ProbeKind.TWO_HOP: 16,
    ProbeKind.LOCALITY: 32,
    ProbeKind.CHOICE: 16,
}
"""Probes of each kind a cycle; fewer are asked where the facts yield no more."""


@dataclass(frozen=True, slots=True)
class DriftProbe:
    """A question in a namespace, its accepted answers, and the ids of the edits that it is made from."""

    kind: ProbeKind
    question: str
    accepted: tuple[str, ...]
    namespace: str
    edit_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BaseAnswer:
    """What the base model alone answered to a question that no edit is about."""

    question: str
    answer: str
    namespace: str = "default"


def make(
    facts: Sequence[Fact],
    base: Sequence[BaseAnswer],
    *,
    seed: int,
    cycle: int,
    quota: Mapping[ProbeKind, int] = QUOTA,
) -> tuple[DriftProbe, ...]:
    """The probes of a cycle in the order to be asked: the same for the same arguments, in any order.

    `facts` are current facts or a sample of them; a two-hop probe needs both of its facts in it. Of several
    facts of a key (set-valued relations) each is accepted. Prompt keys yield verbatim and rephrased probes
    only, and a name that stands for two things under one relation no alias or two-hop probe.
    """
    rng = Random(f"{seed}:{cycle}")
    index = _Known.of(facts)
    recorded = sorted(base, key=lambda answer: (answer.namespace, answer.question))
    probes = (
        *_drawn(rng, quota.get(ProbeKind.VERBATIM, 0), index.facts, index.verbatim),
        *_drawn(rng, quota.get(ProbeKind.REPHRASED, 0), index.facts, index.rephrased),
        *_drawn(rng, quota.get(ProbeKind.ALIAS, 0), index.aliased(), index.alias),
        *_drawn(rng, quota.get(ProbeKind.TWO_HOP, 0), index.pairs(), index.two_hop),
        *_drawn(rng, quota.get(ProbeKind.LOCALITY, 0), recorded, _locality),
        *_drawn(rng, quota.get(ProbeKind.CHOICE, 0), index.choosable(), index.choice),
    )
    return tuple(rng.sample(probes, len(probes)))


def right(probe: DriftProbe, answer: str) -> bool:
    """Whether an answer is right: one of the accepted ones; for locality, the base model's own."""
    if probe.kind is ProbeKind.LOCALITY:
        return same_answer(answer, probe.accepted[0])
    return matches(answer, probe.accepted)


def score(answers: Iterable[tuple[DriftProbe, str]], time_ms: int, batch: int = 16) -> tuple[Reading, ...]:
    """Probes with their answers as readings, each of at most `batch` outcomes of a kind, in order."""
    outcomes: dict[ProbeKind, list[bool]] = defaultdict(list)
    for probe, answer in answers:
        outcomes[probe.kind].append(right(probe, answer))
    return tuple(
        r.share(READING[kind], hits[start : start + batch], time_ms)
        for kind, hits in outcomes.items()
        for start in range(0, len(hits), batch)
    )


def _drawn(
    rng: Random, n: int, pool: Sequence[Item], probe: Callable[[Item, Random], DriftProbe]
) -> list[DriftProbe]:
    return [probe(item, rng) for item in rng.sample(pool, min(n, len(pool)))]


def _locality(base: BaseAnswer, _rng: Random) -> DriftProbe:
    return DriftProbe(ProbeKind.LOCALITY, base.question, (base.answer,), base.namespace)


def _question(fact: Fact) -> str:
    return _about(fact, fact.subject) if fact.relation else fact.prompt


def _about(fact: Fact, name: str) -> str:
    return _TEXTS.direct.format(relation=fact.relation, subject=name)


def _names(fact: Fact) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key_form(name) for name in (fact.subject, *fact.subject_aliases)))


@dataclass(frozen=True)
class _Known:
    """Facts in a fixed order, and what is looked up in them.

    `accepted` answers by key; `keys` by (namespace, name, relation); `targets` by (namespace, relation), as
    written by their normal form.
    """

    facts: tuple[Fact, ...]
    accepted: Mapping[FactKey, tuple[str, ...]]
    keys: Mapping[tuple[str, str, str], frozenset[FactKey]]
    targets: Mapping[tuple[str, str], Mapping[str, str]]

    @classmethod
    def of(cls, facts: Sequence[Fact]) -> _Known:
        ordered = tuple(sorted(facts, key=lambda fact: (fact.key, fact.edit_id)))
        accepted: dict[FactKey, dict[str, None]] = defaultdict(dict)
        keys: dict[tuple[str, str, str], set[FactKey]] = defaultdict(set)
        targets: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        for fact in ordered:
            accepted[fact.key] |= dict.fromkeys((fact.target, *fact.target_aliases))
            if fact.relation:
                space, relation = fact.key.namespace, fact.key.relation
                targets[space, relation].setdefault(normalise(fact.target), fact.target)
                for name in _names(fact):
                    keys[space, name, relation].add(fact.key)
        texts = {key: tuple(values) for key, values in accepted.items()}
        return cls(ordered, texts, {place: frozenset(values) for place, values in keys.items()}, targets)

    def verbatim(self, fact: Fact, _rng: Random) -> DriftProbe:
        return self._probe(ProbeKind.VERBATIM, _question(fact), fact)

    def rephrased(self, fact: Fact, rng: Random) -> DriftProbe:
        wording = rng.choice(_TEXTS.rephrased if fact.relation else _TEXTS.rephrased_prompt)
        filled = {"relation": fact.relation, "subject": fact.subject, "prompt": fact.prompt}
        return self._probe(ProbeKind.REPHRASED, wording.format(**filled), fact)

    def aliased(self) -> list[tuple[Fact, str]]:
        """Facts with each alias that names nothing else under the relation."""
        return [
            (fact, alias)
            for fact in self.facts
            if fact.relation
            for alias in fact.subject_aliases
            if self._alone(fact, alias)
        ]

    def alias(self, item: tuple[Fact, str], _rng: Random) -> DriftProbe:
        fact, alias = item
        return self._probe(ProbeKind.ALIAS, _about(fact, alias), fact)

    def pairs(self) -> list[tuple[Fact, Fact]]:
        """Facts that end where another begins, unless they have several ends: one answer must be right."""
        starting: dict[tuple[str, str], list[Fact]] = defaultdict(list)
        for fact in self.facts:
            for name in _names(fact) if fact.relation else ():
                if self._alone(fact, name):
                    starting[fact.key.namespace, name].append(fact)
        members = Counter(fact.key for fact in self.facts)
        return [
            (first, second)
            for first in self.facts
            if first.relation and members[first.key] == 1
            for second in starting[first.key.namespace, key_form(first.target)]
            if second.key != first.key
        ]

    def two_hop(self, item: tuple[Fact, Fact], _rng: Random) -> DriftProbe:
        first, second = item
        question = _TEXTS.two_hop.format(last=second.relation, first=first.relation, subject=first.subject)
        accepted, ids = self.accepted[second.key], (first.edit_id, second.edit_id)
        return DriftProbe(ProbeKind.TWO_HOP, question, accepted, second.key.namespace, ids)

    def choosable(self) -> list[Fact]:
        """Facts for which other facts of the relation give enough wrong answers."""
        return [fact for fact in self.facts if fact.relation and self._wrong(fact) >= OPTIONS - 1]

    def choice(self, fact: Fact, rng: Random) -> DriftProbe:
        own, others = self._own(fact), self.targets[fact.key.namespace, fact.key.relation]
        wrong = [text for form, text in others.items() if form not in own]
        options = [fact.target, *rng.sample(wrong, OPTIONS - 1)]
        rng.shuffle(options)
        named = {"relation": fact.relation, "subject": fact.subject}
        question = _TEXTS.choice.format(**named, others=", ".join(options[:-1]), last=options[-1])
        return self._probe(ProbeKind.CHOICE, question, fact)

    def _own(self, fact: Fact) -> set[str]:
        return {normalise(text) for text in self.accepted[fact.key]}

    def _wrong(self, fact: Fact) -> int:
        others = self.targets[fact.key.namespace, fact.key.relation]
        return len(others) - sum(form in others for form in self._own(fact))

    def _probe(self, kind: ProbeKind, question: str, fact: Fact) -> DriftProbe:
        return DriftProbe(kind, question, self.accepted[fact.key], fact.key.namespace, (fact.edit_id,))

    def _alone(self, fact: Fact, name: str) -> bool:
        return self.keys[fact.key.namespace, key_form(name), fact.key.relation] == {fact.key}
