"""The edit memory as it would be with one more edit: for a dry run, nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from lte_runtime.answer.answerer import AnswerMemory
from lte_runtime.errors import NotFound
from lte_runtime.facts.keys import view_of
from lte_runtime.facts.policy import current, effective_times, fold, moment_of
from lte_runtime.facts.subject_names import subject_names
from lte_runtime.memory.retrieve import rank, with_ambiguity
from lte_runtime.memory.views import windows_of
from lte_runtime.names.index import NameIndex
from lte_runtime.names.tokens import folded_name
from lte_runtime.store.records import EditRecord
from lte_runtime.store.rows import fact_of
from lte_runtime.types import (
    Candidate,
    Candidates,
    Edit,
    Encoder,
    Fact,
    FactKey,
    Former,
    TopicPartition,
    Vectors,
)

# A key that the store does not have yet.
UNKNOWN_KEY = -1


class OverlayMemory(AnswerMemory, Protocol):
    """What a dry run needs of the edit memory beside what answers need."""

    def history(self, key: FactKey) -> list[EditRecord]: ...


def facts_with(memory: OverlayMemory, key: FactKey, edit: Edit, now_ms: int) -> tuple[Fact, ...]:
    """The facts of a key once the edit is applied: by the same fold that the store uses."""
    try:
        edits = [record.edit for record in memory.history(key)]
    except NotFound:
        edits = []
    return tuple(
        fact_of(fact, UNKNOWN_KEY)
        for fact in current(fold([*edits, _last(edit, key, edits, now_ms)]), now_ms)
    )


def _last(edit: Edit, key: FactKey, edits: Sequence[Edit], now_ms: int) -> Edit:
    """The edit right behind the newest one of the key in its partition: what arrives next is the newest
    where no revision says otherwise."""
    newest = max(effective_times(edits), key=moment_of, default=edit)
    position = replace(newest.position, offset=newest.position.offset + 1)
    return replace(edit, key=key, position=position, timestamp_ms=now_ms)


class Overlay:
    """`memory` with the facts of one key exchanged for others. Safe from several threads."""

    def __init__(self, memory: OverlayMemory, encoder: Encoder, key: FactKey, facts: Sequence[Fact]) -> None:
        self._memory, self._encoder = memory, encoder
        self._key, self._facts = key, tuple(facts)
        views = [view_of(fact.subject, fact.relation, fact.prompt) for fact in facts]
        self._names = NameIndex()
        for place, fact in enumerate(self._facts):
            self._names.add(place, key.namespace, subject_names(fact))
        self._vectors: list[Vectors] = [encoder.encode(windows_of(view, encoder)) for view in views]

    def candidates(
        self, question: str, vector: Vectors | None, *, namespace: str, k: int = 8, at_ms: int | None = None
    ) -> Candidates:
        """The key's own place in the search goes to its new facts, by cosine and by name."""
        if vector is None:
            vector = self._encoder.encode([question], query=True)
        stored = self._memory.candidates(question, vector, namespace=namespace, k=k, at_ms=at_ms)
        candidates = [candidate for candidate in stored.items if candidate.fact.key != self._key]
        if namespace == self._key.namespace:
            candidates += self._new_candidates(question, vector.reshape(-1))
        ranked = sorted(with_ambiguity(candidates), key=rank)
        items = tuple(ranked[: max(k, len(stored.items))])
        return Candidates(items, stored.watermarks, stored.index_path)

    def _new_candidates(self, question: str, vector: Vectors) -> list[Candidate]:
        hits = self._names.find(question, self._key.namespace, len(self._facts))
        mentions = {hit.key_id: hit.mention for hit in hits}
        return [
            Candidate(fact, float(max(rows @ vector)), mentions.get(place))
            for place, (fact, rows) in enumerate(zip(self._facts, self._vectors, strict=True))
        ]

    def facts_of_subject(
        self,
        name: str,
        *,
        namespace: str,
        at_ms: int | None = None,
        limit: int | None = None,
        vector: Vectors | None = None,
    ) -> tuple[Fact, ...]:
        stored = self._memory.facts_of_subject(
            name, namespace=namespace, at_ms=at_ms, limit=limit, vector=vector
        )
        others = tuple(fact for fact in stored if fact.key != self._key)
        if namespace != self._key.namespace:
            return others
        folded = folded_name(name)
        new = (fact for fact in self._facts if folded in map(folded_name, subject_names(fact)))
        return (*others, *new)

    def members_beside(
        self, fact: Fact, limit: int, at_ms: int | None = None
    ) -> tuple[tuple[Fact, ...], int]:
        if fact.key == self._key:
            return self._facts[:limit], len(self._facts)
        return self._memory.members_beside(fact, limit, at_ms)

    def former_values(self, fact: Fact, limit: int, at_ms: int | None = None) -> tuple[Former, ...]:
        """None for the key itself: a dry run compares current answers."""
        return () if fact.key == self._key else self._memory.former_values(fact, limit, at_ms)

    def watermarks(self) -> Mapping[TopicPartition, int]:
        return self._memory.watermarks()

    def wait_for(
        self, at_least: Mapping[TopicPartition, int], timeout_s: float, cancelled: Callable[[], bool]
    ) -> bool:
        return self._memory.wait_for(at_least, timeout_s, cancelled)
