"""Facts for a question: nearest keys united with keys whose names it mentions, resolved at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from lte_runtime.memory.projection import Projection
from lte_runtime.names.name_index import NameHit, Nearest
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
        hits = _named(projection, question, vector, namespace, k, dense)
    facts |= at.facts(connection, [key_id for key_id in hits if key_id not in facts], MOST_MEMBERS)
    ambiguous = _ambiguous(hits, facts)
    items = [
        _candidate(fact, dense[key_id], hits.get(key_id), key_id in ambiguous)
        for key_id, key_facts in facts.items()
        for fact in key_facts
    ]
    items.sort(key=rank)
    return Candidates(tuple(items), watermarks, path)


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
) -> dict[int, NameHit]:
    """The keys whose names are mentioned, at most `2 k`, the nearest ones; adds their cosines."""
    nearest = _nearest_keys(projection, namespace, vector)
    hits = {hit.key_id: hit for hit in projection.find_names(question, namespace, MOST_NAMED, nearest)}
    unknown = [key_id for key_id in hits if key_id not in dense]
    if unknown:
        dense |= projection.indexes[namespace].scores(unknown, vector[0])
    best = sorted(
        (key_id for key_id in hits if key_id in dense),
        key=lambda key_id: (-(dense[key_id] + LEXICAL_WEIGHT * hits[key_id].score), key_id),
    )
    return {key_id: hits[key_id] for key_id in best[: 2 * k]}


def _ambiguous(hits: Mapping[int, NameHit], facts: Mapping[int, Sequence[Fact]]) -> set[int]:
    """Keys found by one name that several subjects bear."""
    subjects: dict[str, set[str]] = {}
    for key_id, hit in hits.items():
        subjects.setdefault(hit.name.casefold(), set()).update(fact.key.subject for fact in facts[key_id])
    return {key_id for key_id, hit in hits.items() if len(subjects[hit.name.casefold()]) > 1}


def _candidate(fact: Fact, dense: float, hit: NameHit | None, ambiguous: bool) -> Candidate:
    lexical, name = (hit.score, hit.name) if hit else (0.0, "")
    return Candidate(fact, dense, lexical, name, ambiguous)


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
    """Facts of the keys that bear the name; of more than `limit` those nearest to `vector` [dimension]."""
    with projection.reading():
        nearest = tuple if vector is None else _nearest_keys(projection, namespace, vector.reshape(1, -1))
        key_ids = projection.names.ids_of(name, namespace, limit, nearest)
    most = reader.ALL_MEMBERS if limit is None else MOST_MEMBERS
    return tuple(fact for facts in at.facts(connection, key_ids, most).values() for fact in facts)


def members_beside(connection: Connection, at: At, key_id: int, limit: int) -> tuple[tuple[Fact, ...], int]:
    """The newest facts of a key, at most `limit`, and how many it has; a set may have thousands."""
    facts = at.facts(connection, [key_id], max(limit, MOST_MEMBERS))[key_id]
    members = reader.count_members(connection, key_id, at.ms, as_of=at.as_of)
    return facts[:limit], max(members, len(facts))
