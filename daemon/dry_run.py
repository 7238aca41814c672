"""Which answers an edit would change: the probes around it are answered without the edit and with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lte_runtime.answer.answerer import AnswerMemory
from lte_runtime.answer.budget import Budget
from lte_runtime.answer.overlay import Overlay, facts_with
from lte_runtime.answer.overlay import OverlayMemory as LookupMemory
from lte_runtime.drift import probes
from lte_runtime.drift.probes import DriftProbe, ProbeKind
from lte_runtime.errors import BadRequest, NotFound
from lte_runtime.scoring import same_answer
from lte_runtime.store.records import EditRecord
from lte_runtime.types import Answer, Edit, Encoder, Fact, FactKey, Question

NEIGHBOURS, MOST_FACTS = 8, 32
QUOTA = {ProbeKind.VERBATIM: 16, ProbeKind.REPHRASED: 4, ProbeKind.ALIAS: 4, ProbeKind.TWO_HOP: 8}


class DryRunMemory(LookupMemory, Protocol):
    """What a dry run needs of the edit memory beside looking up."""

    def get_edit(self, edit_id: str, *, in_namespace: Callable[[str], bool]) -> EditRecord: ...


class DryRunAnswerer(Protocol):
    def answer(self, q: Question, *, cancelled: Callable[[], bool]) -> Answer: ...


@dataclass(frozen=True, slots=True)
class DryRunAnswer:
    """What an answer says and which edits it cites."""

    text: str
    edit_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProbeChange:
    """A probe before and after. `changed` compares the texts as probes are judged."""

    kind: str
    question: str
    before: DryRunAnswer
    after: DryRunAnswer

    @property
    def changed(self) -> bool:
        return not same_answer(self.before.text, self.after.text)


@dataclass(frozen=True, slots=True)
class DryRun:
    """`applied`: the edit would be what questions see; else `winner_id` stands in its place, if anything."""

    key: FactKey
    applied: bool
    winner_id: str
    changes: tuple[ProbeChange, ...]


class DryRunner:
    """`answers_over` makes the users' path over another memory. Costs two answers for each probe."""

    def __init__(
        self,
        memory: DryRunMemory,
        encoder: Encoder,
        answers_over: Callable[[AnswerMemory], DryRunAnswerer],
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._memory, self._encoder, self._answers_over, self._now = memory, encoder, answers_over, now

    def run(self, edit: Edit, *, max_probes: int, deadline: float, cancelled: Callable[[], bool]) -> DryRun:
        """Raises `NotFound` for a retraction of an unknown edit, and what an answer raises. `deadline` is on
        the monotonic clock, for all of it."""
        key = self._key_of(edit)
        facts = facts_with(self._memory, key, edit, self._now())
        overlay = Overlay(self._memory, self._encoder, key, facts)
        before, after = self._answers_over(self._memory), self._answers_over(overlay)
        chosen = self._probes(key, facts, Budget(deadline, cancelled))[:max_probes]
        changes = tuple(
            ProbeChange(
                probe.kind,
                probe.question,
                _answer(before, probe, deadline, cancelled),
                _answer(after, probe, deadline, cancelled),
            )
            for probe in chosen
        )
        ids = {fact.edit_id for fact in facts}
        applied = edit.id in ids or (edit.op == "retract" and facts != self._current(key))
        winner = "" if applied or not facts else facts[0].edit_id
        return DryRun(key, applied, winner, changes)

    def _key_of(self, edit: Edit) -> FactKey:
        if edit.key is not None:
            return edit.key
        # A retraction has no effect in other namespaces, so what stands there is none of its business.
        record = self._memory.get_edit(edit.retracts or "", in_namespace=edit.namespace.__eq__)
        key = record.edit.key
        if key is None:
            raise NotFound(f"edit {edit.retracts!r} has no key")
        return key

    def _current(self, key: FactKey) -> tuple[Fact, ...]:
        facts = self._memory.facts_of_subject(key.subject, namespace=key.namespace)
        return tuple(fact for fact in facts if fact.key == key)

    def _probes(self, key: FactKey, facts: Sequence[Fact], budget: Budget) -> tuple[DriftProbe, ...]:
        """About the key as it is and as it would be, about its subject, and about its nearest neighbours."""
        space = key.namespace
        near = self._memory.candidates(
            f"{key.relation} {key.subject}".strip(), None, namespace=space, k=NEIGHBOURS
        )
        own = self._memory.facts_of_subject(key.subject, namespace=space, limit=MOST_FACTS)
        around = [*facts, *own]
        for fact in around[:MOST_FACTS]:
            budget.check()
            around += self._memory.facts_of_subject(fact.target, namespace=space, limit=MOST_FACTS)
        around += [candidate.fact for candidate in near.items]
        others = {fact.edit_id: fact for fact in around if fact.key != key}
        # A key has one value at a time: each world makes its own questions.
        worlds = (facts, self._current(key))
        candidates = [probe for world in worlds for probe in _probes_of([*world, *others.values()])]
        if not candidates:
            raise BadRequest("there is nothing to ask about this edit: no current fact is near its key")
        ids = {fact.edit_id for world in worlds for fact in world}
        different = {probe.question: probe for probe in candidates}.values()
        return tuple(sorted(different, key=lambda probe: not ids & set(probe.edit_ids)))


def _probes_of(facts: Sequence[Fact]) -> tuple[DriftProbe, ...]:
    return probes.make(facts[:MOST_FACTS], (), seed=0, cycle=0, quota=QUOTA)


def _answer(
    answers: DryRunAnswerer, probe: DriftProbe, deadline: float, cancelled: Callable[[], bool]
) -> DryRunAnswer:
    answer = answers.answer(Question(probe.question, probe.namespace, deadline=deadline), cancelled=cancelled)
    return DryRunAnswer(answer.text, tuple(citation.fact.edit_id for citation in answer.citations))
