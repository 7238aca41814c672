"""One question, end to end: wait, retrieve, gate, prompt, generate, reply with evidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol

from lte_runtime.answer import fidelity
from lte_runtime.answer.budget import Budget
from lte_runtime.answer.engine.protocol import Engine
from lte_runtime.answer.excerpt import cut
from lte_runtime.answer.fidelity import CitedValue
from lte_runtime.answer.follow_up import FollowUp, Names
from lte_runtime.answer.prompt import Prompt, explained, listed, one_line, restated, superseded
from lte_runtime.answer.retriever import Lookup, Retriever, RetrieverSettings
from lte_runtime.answer.scope import gate
from lte_runtime.errors import BadRequest, Cancelled, DeadlineExceeded, Refused
from lte_runtime.facts.keys import view_of
from lte_runtime.facts.schema import from_ms
from lte_runtime.memory.projection import reached
from lte_runtime.names.mention import Mentions
from lte_runtime.names.tokens import folded_name
from lte_runtime.places import Places
from lte_runtime.templates import templates
from lte_runtime.types import (
    Answer,
    Candidates,
    Citation,
    Encoder,
    Fact,
    GateDecision,
    GenerateRequest,
    Question,
    Retrieval,
    Scope,
    ScopeMode,
    TopicPartition,
)

MOST_TARGETS = 8
"""Values of the hop before in which an alias is looked for, the first ones; a set may have thousands."""


class AnswerMemory(Lookup, Names, Protocol):
    """What the answerer needs of the edit memory."""

    def watermarks(self) -> Mapping[TopicPartition, int]: ...

    def wait_for(
        self, at_least: Mapping[TopicPartition, int], timeout_s: float, cancelled: Callable[[], bool]
    ) -> bool: ...


@dataclass(frozen=True, slots=True)
class AnswererSettings:
    """`wait_s` bounds the wait for `at_least` of a question without a deadline; `max_waiting` questions may
    wait at once, since each one holds a thread of its server. `max_turns` and `max_conversation_chars` bound
    what is taken of a conversation before the question; how much of it is read, `turns` and `follow_up` say.

    `use_adapter` False answers edited questions with the base model too: the other arm of evaluations.
    `fidelity` puts misquoted values right (`lte_runtime.answer.fidelity`); off where the model is measured.
    """

    wait_s: float = 10.0
    max_waiting: int = 32
    max_question_chars: int = 8192
    max_turns: int = 10_000
    max_conversation_chars: int = 1 << 20
    max_new_tokens: int = 512
    use_adapter: bool = True
    fidelity: bool = True
    retriever: RetrieverSettings = field(default_factory=RetrieverSettings)


class Answerer:
    """Answers questions from the memory and the engine; safe from several threads.

    Raises `Refused` at once when the gate was calibrated for another encoder: its scores would mean nothing.
    """

    def __init__(
        self,
        memory: AnswerMemory,
        encoder: Encoder,
        calibration: gate.GateCalibration,
        engine: Engine,
        settings: AnswererSettings | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if calibration.encoder != encoder.fingerprint:
            raise Refused(
                f"the scope gate is calibrated for encoder {calibration.encoder[:12]}, this one is "
                f"{encoder.fingerprint[:12]}: run `lte gate calibrate`"
            )
        self._memory, self._engine, self._now = memory, engine, now
        self._settings = settings or AnswererSettings()
        self._retriever = Retriever(memory, encoder, calibration, self._settings.retriever)
        self._threshold = calibration.threshold
        most = self._settings.max_waiting
        self._waiting = Places(
            most, f"{most} calls wait for events (at_least) already: ask again later, or without at_least"
        )

    def retrieve(self, q: Question, cancelled: Callable[[], bool] = lambda: False) -> Retrieval:
        """Facts and the gate's decision, without generation.

        Raises `BadRequest`, `Overloaded` when too many questions wait, and between any two steps
        `DeadlineExceeded` and `Cancelled`.
        """
        self._check(q)
        budget = Budget(q.deadline, cancelled, self._now)
        with self._waiting_place(q):
            # Encoded while the memory may still be on its way to `at_least`.
            encoded = None if q.scope is ScopeMode.BASE else self._retriever.read(q.text, budget)
            self._wait(q, cancelled)
        if encoded is None:
            decision = GateDecision(Scope.BASE, 0.0, self._threshold, "asked for the base model")
            return Retrieval((), decision, Candidates((), self._memory.watermarks(), "none"), {})
        alone = self._retriever.retrieve(q, q.as_of, encoded, budget)
        if not q.earlier:
            return alone

        def look_up(reading: Question) -> Retrieval:
            own_budget = Budget(q.deadline, cancelled, self._now)
            return self._retriever.retrieve(reading, q.as_of, budget=own_budget)

        return FollowUp(q, self._memory, look_up).retrieve(alone)

    def answer(
        self,
        q: Question,
        on_text: Callable[[str], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Answer:
        """The answer with its evidence.

        `on_text` gets pieces of text as they are made; where the text may still be put right, it gets all of
        it at once when it is final. Raises `BadRequest`, `DeadlineExceeded` (before or while generating),
        `Cancelled` and `Overloaded`.
        """
        started = self._now()
        retrieval = self.retrieve(q, cancelled)
        if cancelled():
            raise Cancelled("the caller went away")
        scope = Scope.EDITED if retrieval.citations else Scope.BASE
        question_text = retrieval.read_as or q.text
        if retrieval.citations or not q.earlier:
            prompt, citations = self._prompt(question_text, retrieval.citations)
        else:
            prompt, citations = self._engine.prompt(q.text, earlier=q.earlier), ()
        values = self._to_quote(retrieval, citations)
        request = GenerateRequest(
            token_ids=prompt.token_ids,
            adapter=scope is Scope.EDITED and self._settings.use_adapter,
            max_new_tokens=min(q.max_new_tokens, self._settings.max_new_tokens),
            deadline=q.deadline,
            cancelled=cancelled,
            on_text=None if values else on_text,
            values=prompt.values if self._settings.use_adapter else (),
            several_lines=scope is Scope.BASE,
        )
        generation = self._engine.generate(request)
        if generation.finish == "deadline":
            raise DeadlineExceeded("the answer was not finished within the deadline")
        if generation.finish == "cancelled":
            raise Cancelled("the caller went away")
        free_text = generation.text.strip()
        cut_short = generation.finish == "length"
        text = fidelity.corrected(free_text, values, question_text, cut_short=cut_short)
        # Of facts with several keys, the question's words decide which one is asked for.
        if retrieval.gate.sure and len({fact.key for fact in last_facts(citations)}) == 1:
            text = fidelity.completed(text, values, question_text)
        if values and on_text and text:
            on_text(text)
        answer_ms = {
            "queue": generation.queue_ms,
            "model": generation.model_ms,
            "total": (self._now() - started) * 1e3,
        }
        return Answer(
            text=text,
            scope=scope,
            citations=citations,
            adapter=generation.adapter,
            watermarks=retrieval.candidates.watermarks,
            gate=retrieval.gate,
            finish=generation.finish,
            timings_ms={**retrieval.timings_ms, **answer_ms},
            index_path=retrieval.candidates.index_path,
            token_ids=generation.token_ids,
            corrected_from="" if text == free_text else free_text,
            prompt_tokens=len(prompt.token_ids),
            read_as=retrieval.read_as,
            dropped_turns=prompt.dropped_turns,
        )

    def _to_quote(self, retrieval: Retrieval, citations: Sequence[Citation]) -> Sequence[CitedValue]:
        """The values that the answer is checked against: those of the last hop's facts; none where it is not.

        A question that asks for more than the facts tell is answered with something else, however near it
        comes ("German" where the facts say "Germany").
        """
        if not (self._settings.fidelity and citations) or retrieval.composed:
            return ()
        values = [cited_value(fact) for fact in last_facts(citations)]
        return values if any(map(fidelity.is_quotable, values)) else ()

    def _prompt(self, text: str, citations: Sequence[Citation]) -> tuple[Prompt, tuple[Citation, ...]]:
        """The prompt, and the citations of what it holds; a list that does not fit is halved. Of a chain it
        holds the last hop's facts, under what is left to ask."""
        groups = grouped(citations)
        resolved = before_last_hop(groups)
        question_text = remaining(groups[resolved][0].fact) if resolved else text
        while True:
            facts = prompt_facts(text, groups)
            prompt = self._engine.prompt(question_text, facts[resolved:])
            used = resolved + prompt.used_facts
            if used == len(groups) or len(groups[used]) == 1:
                return prompt, tuple(citation for group in groups[:used] for citation in group)
            groups[used] = groups[used][: len(groups[used]) // 2]

    def _check(self, q: Question) -> None:
        if not q.text.strip():
            raise BadRequest("the question is empty")
        if len(q.text) > self._settings.max_question_chars:
            raise BadRequest(f"the question is longer than {self._settings.max_question_chars} characters")
        if len(q.earlier) > self._settings.max_turns:
            raise BadRequest(
                f"{len(q.earlier)} turns before the question, at most {self._settings.max_turns} are taken: "
                "leave out the oldest"
            )
        if sum(len(turn.text) for turn in q.earlier) > self._settings.max_conversation_chars:
            raise BadRequest(
                f"the turns before the question have more than {self._settings.max_conversation_chars} "
                "characters: leave out the oldest"
            )
        if q.max_new_tokens < 1:
            raise BadRequest("max_new_tokens must be at least 1")
        if self._wait_left_s(q) <= 0:
            raise DeadlineExceeded("the deadline passed before the work began")

    def _wait_left_s(self, q: Question) -> float:
        """Seconds that are left to wait."""
        return self._settings.wait_s if q.deadline is None else q.deadline - self._now()

    def _waiting_place(self, q: Question) -> AbstractContextManager[None]:
        """Needed only by a question whose `at_least` is still to come."""
        visible = reached(self._memory.watermarks(), q.at_least)
        return nullcontext() if visible else self._waiting.take()

    def _wait(self, q: Question, cancelled: Callable[[], bool]) -> None:
        """Waits until the memory is at `at_least`; raises `DeadlineExceeded` naming what is missing."""
        if not q.at_least or self._memory.wait_for(q.at_least, self._wait_left_s(q), cancelled):
            return
        marks = self._memory.watermarks()
        missing = [
            f"{tp.topic_id}/{tp.partition} is at offset {marks.get(tp, 0)}, at_least asks for {offset}"
            for tp, offset in sorted(q.at_least.items())
            if marks.get(tp, 0) < offset
        ]
        raise DeadlineExceeded(
            "not yet applied: " + ("; ".join(missing) or "the deadline passed while they were being applied")
        )


def cited_value(fact: Fact) -> CitedValue:
    """What an answer may quote of a fact, as it stands in the prompt."""
    texts = tuple(map(one_line, (fact.target, *fact.target_aliases)))
    return CitedValue(texts, (fact.subject, *fact.subject_aliases))


def last_facts(citations: Sequence[Citation]) -> list[Fact]:
    """The facts of the last hop, which the answer is in."""
    last = max((citation.hop for citation in citations), default=0)
    return [citation.fact for citation in citations if citation.hop == last]


def grouped(citations: Sequence[Citation]) -> list[Sequence[Citation]]:
    """Citations as they stand in the prompt: the current members of one set together, others alone."""
    groups: dict[object, list[Citation]] = {}
    for citation in citations:
        alone = citation.superseded or citation.members == 1
        groups.setdefault(object() if alone else (citation.hop, citation.fact.key), []).append(citation)
    return list(groups.values())


def before_last_hop(groups: Sequence[Sequence[Citation]]) -> int:
    """How many groups, in hop order, the chain has resolved already: they lead to the last hop's facts."""
    last = max((group[0].hop for group in groups), default=1)
    return sum(group[0].hop < last for group in groups)


def remaining(last: Fact) -> str:
    """What is left to ask of a chain once its earlier hops are known: the last fact's own question.

    Decomposition as in MeLLo (Zhong et al., 2023, arXiv 2305.14795), by the chain instead of the model.
    """
    view = view_of(last.subject, last.relation, last.prompt)
    return templates().view.remaining.format(view=view) if last.relation else view


def prompt_facts(question: str, groups: Sequence[Sequence[Citation]]) -> tuple[Fact, ...]:
    """Facts as they stand in the prompt, one for each group: plain words first, a set as one list, an alias
    that led there explained, what is superseded called so."""
    mentions = {0: [Mentions(cut(question))]}
    for citation in (citation for group in groups for citation in group):
        texts = mentions.setdefault(citation.hop, [])
        if len(texts) < MOST_TARGETS:
            texts.append(Mentions(cut(citation.fact.target)))
    names = [_used_name(group[0], mentions.get(group[0].hop - 1, [])) for group in groups]
    facts = [_prompt_fact(group) for group in groups]
    return tuple(map(_explained, facts, names))


def _prompt_fact(group: Sequence[Citation]) -> Fact:
    citation = group[0]
    if citation.members > 1:
        return _as_list(group)
    fact = citation.fact
    statement = restated(fact.subject, fact.relation, fact.prompt, fact.target, fact.statement)
    fact = replace(fact, statement=statement)
    if not citation.superseded:
        return fact
    times = (citation.held_from, citation.held_until)
    held = (None if at is None else from_ms(at - at % 1000) for at in times)
    return replace(fact, statement=superseded(fact.statement, *held))


def _as_list(group: Sequence[Citation]) -> Fact:
    """The members as one fact, without their publishers' sentences: behind those, models name one member."""
    fact, targets = group[0].fact, [citation.fact.target for citation in group]
    statement = listed(fact.subject, fact.relation, fact.prompt, targets, group[0].members)
    return replace(fact, target=", ".join(targets), statement=statement)


def _used_name(citation: Citation, texts: Sequence[Mentions]) -> str:
    """The alias that the question, or the hop before, uses for the subject; empty for its own name."""
    fact = citation.fact
    if not fact.subject_aliases:
        return ""
    matches = (
        (mention.score, len(name), name)
        for name in (fact.subject, *fact.subject_aliases)
        for text in texts
        if (mention := text.of(name)) and mention.named
    )
    best = max(matches, default=(0.0, 0, ""))[2]
    return "" if folded_name(best) == folded_name(fact.subject) else best


def _explained(fact: Fact, alias: str) -> Fact:
    if not alias or not fact.subject:
        return fact
    return replace(fact, statement=explained(fact.statement, fact.subject, alias))
