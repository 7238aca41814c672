"""Facts for a question: nearest keys united with keys whose names it mentions, resolved at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain

from lte_runtime.facts.subject_names import subject_names
from lte_runtime.memory.projection import Projection
from lte_runtime.names.index import Nearest
from lte_runtime.names.mention import Mention, Mentions
from lte_runtime.names.tokens import folded_name
from lte_runtime.store import reader
from lte_runtime.store.db import Connection
from lte_runtime.types import Candidate, Candidates, Fact, Vectors

LEXICAL_WEIGHT = 0.2
"""How much a mentioned name counts beside the cosine when candidates are put in order; the gate decides."""
MOST_NAMED = 512
"""Keys that are compared when many bear the mentioned name."""
NEAREST_NAMED = 1_024
"""Nearest keys among which the bearers of a name are looked for, where too many bear it to compare all."""
MOST_MEMBERS = 64
"""Rows of a set that are read for a candidate and for citing it, the newest; several may tell one member."""
WIDEST = 64
"""Times the wanted number: how far the search goes for nearest keys that hold at the time."""


@dataclass(frozen=True, slots=True)
class At:
    """When facts shall hold: milliseconds, whether the past was asked for, and the topics' names."""

    ms: int
    as_of: bool
    topics: Mapping[int, str]

    def facts(
        self, connection: Connection, key_ids: Sequence[int], most: int = reader.ALL_MEMBERS
    ) -> dict[int, tuple[Fact, ...]]:
        return reader.facts_at(connection, key_ids, self.ms, self.topics, as_of=self.as_of, most=most)


def candidates(
    projection: Projection,
    connection: Connection,
    at: At,
    question: str,
    vector: Vectors,
    namespace: str,
    k: int,
) -> Candidates:
    """Best first; at most `k` keys by vector and `2 k` by name."""
    vector = vector.reshape(1, -1)
    with projection.reading() as watermarks:
        dense, facts, path = _nearest(projection, connection, at, vector, namespace, k)
        mentions = _named(projection, question, vector, namespace, k, dense)
    facts |= at.facts(connection, [key_id for key_id in mentions if key_id not in facts], MOST_MEMBERS)
    mentions = _borne(mentions, facts)
    if at.as_of:
        mentions |= _former_names(question, {i: facts[i] for i in facts if i not in mentions})
    items = [
        Candidate(fact, dense[key_id], mentions.get(key_id))
        for key_id, key_facts in facts.items()
        for fact in key_facts
    ]
    return Candidates(tuple(sorted(with_ambiguity(items), key=rank)), watermarks, path)


def rank(candidate: Candidate) -> tuple[float, int]:
    """What candidates are sorted by, the best first."""
    return (-(candidate.dense + LEXICAL_WEIGHT * candidate.lexical), candidate.fact.key_id)


def _nearest(
    projection: Projection, connection: Connection, at: At, vector: Vectors, namespace: str, k: int
) -> tuple[dict[int, float], dict[int, tuple[Fact, ...]], str]:
    """The nearest keys that have a fact at the time: the search widens while expired ones take places."""
    width, facts = k, dict[int, tuple[Fact, ...]]()
    while True:
        ids, scores, path = projection.search(namespace, vector, width)
        facts |= at.facts(connection, [key_id for key_id in ids if key_id not in facts], MOST_MEMBERS)
        valid = [key_id for key_id in ids if facts[key_id]][:k]
        if len(valid) >= k or len(ids) < width or width >= WIDEST * k:
            dense = dict(zip(ids, scores, strict=True))
            return {i: dense[i] for i in valid}, {i: facts[i] for i in valid}, path
        width *= 4


def _named(
    projection: Projection, question: str, vector: Vectors, namespace: str, k: int, dense: dict[int, float]
) -> dict[int, Mention]:
    """Where the names of keys are mentioned: of the nearest ones, and of at most `2 k` others, whose cosines
    are added."""
    nearest = _nearest_keys(projection, namespace, vector)
    hits = projection.find_names(question, namespace, MOST_NAMED, nearest)
    mentions = {hit.key_id: hit.mention for hit in hits}
    near = dense.keys() & mentions.keys()
    unknown = [key_id for key_id in mentions if key_id not in dense]
    if unknown:
        dense |= projection.indexes[namespace].scores(unknown, vector[0])
    best = sorted(
        (key_id for key_id in mentions if key_id in dense),
        key=lambda key_id: (-(dense[key_id] + LEXICAL_WEIGHT * mentions[key_id].score), key_id),
    )
    return {key_id: mentions[key_id] for key_id in dict.fromkeys([*best[: 2 * k], *sorted(near)])}


def _borne(mentions: Mapping[int, Mention], facts: Mapping[int, Sequence[Fact]]) -> dict[int, Mention]:
    """The mentions of names that a fact of the key bears at the time: a name that only superseded edits have
    given it is not its name any more."""
    return {
        key_id: mention
        for key_id, mention in mentions.items()
        if any(_bears(fact, mention.name) for fact in facts[key_id])
    }


def _bears(fact: Fact, folded: str) -> bool:
    return folded in map(folded_name, subject_names(fact))


def _former_names(question: str, facts: Mapping[int, Sequence[Fact]]) -> dict[int, Mention]:
    """Where names stand that facts of the past bear: what is looked up are the names of today."""
    mentions = Mentions(question)
    best = {key_id: mentions.best(chain(*map(subject_names, of_key))) for key_id, of_key in facts.items()}
    return {key_id: mention for key_id, mention in best.items() if mention}


def with_ambiguity(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates, their mentions called ambiguous where the same words mean several subjects equally."""
    subjects: dict[tuple[int, int, float], set[str]] = {}
    for candidate in candidates:
        if candidate.mention:
            subjects.setdefault(_words(candidate.mention), set()).add(candidate.fact.key.subject)
    return [
        replace(candidate, mention=replace(candidate.mention, ambiguous=True))
        if candidate.mention and len(subjects[_words(candidate.mention)]) > 1
        else candidate
        for candidate in candidates
    ]


def _words(mention: Mention) -> tuple[int, int, float]:
    return mention.start, mention.end, mention.score


def _nearest_keys(projection: Projection, namespace: str, vector: Vectors) -> Nearest:
    """The keys nearest to `vector` [1, dimension]; searched for at the first call, and only then."""
    return lru_cache(1)(lambda: projection.search(namespace, vector, NEAREST_NAMED)[0])


def facts_of_subject(
    projection: Projection,
    connection: Connection,
    at: At,
    name: str,
    namespace: str,
    limit: int | None = None,
    vector: Vectors | None = None,
) -> tuple[Fact, ...]:
    """Facts that bear the name; of more than `limit` keys those nearest to `vector` [dimension]."""
    with projection.reading():
        nearest = tuple if vector is None else _nearest_keys(projection, namespace, vector.reshape(1, -1))
        key_ids = projection.names.ids_of(name, namespace, limit, nearest)
    most = reader.ALL_MEMBERS if limit is None else MOST_MEMBERS
    facts = (fact for facts in at.facts(connection, key_ids, most).values() for fact in facts)
    return tuple(fact for fact in facts if _bears(fact, folded_name(name)))


def members_beside(connection: Connection, at: At, key_id: int, limit: int) -> tuple[tuple[Fact, ...], int]:
    """The newest facts of a key, at most `limit`, and how many it has; a set may have thousands."""
    facts = at.facts(connection, [key_id], max(limit, MOST_MEMBERS))[key_id]
    members = reader.count_members(connection, key_id, at.ms, as_of=at.as_of)
    return facts[:limit], max(members, len(facts))
