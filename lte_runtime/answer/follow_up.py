"""The last turn of a conversation, with what it leaves to the turns before put into it.

"And who is its CFO?" names nothing: it is looked up as "And who is its CFO? (Acme)" where the turn before
named Acme. "And in Berlin?" names another thing alone: it is looked up as the question before with that name.
Either opens the gate, and is what the model is asked then, or the turn is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from lte_runtime.facts.keys import DEFAULT_NAMESPACE
from lte_runtime.facts.subject_names import subject_names
from lte_runtime.names.mention import Mention
from lte_runtime.names.normalise import key_form
from lte_runtime.names.tokens import folded_name
from lte_runtime.types import Fact, Question, Retrieval, Scope, ScopeMode, Turn, TurnRole

MOST_EXCHANGES = 8
"""Questions before the last one that are gone back through for a name, the nearest ones."""
MOST_CARRIED = 3
"""Names of one turn and its answer that a follow-up may be about; each is a look-up of its own."""
READ_CHARS = 2_048
"""Characters of a turn in which names are looked for: of a long answer the first ones, which tell what it is
about."""
# What may stand before the name of a question that asks for nothing by itself, in four languages; in others
# such a question is left to the base model.
_OPENING = (
    r"and|or|but|what about|how about|what of|then|und|oder|was ist mit|wie ist es mit|"
    r"et|ou|qu'en est-il|y|o|qué hay de"
)
_JOINING = (
    r"of|in|at|for|on|from|by|to|with|von|in|bei|für|aus|im|am|à|de|du|pour|en|para|del|al|"
    r"the|a|an|our|your|der|die|das|dem|den|le|la|les|l'|el|los|las"
)
_ONLY_NAMES = re.compile(rf"\W*(?:(?:{_OPENING})\b\W*)?(?:(?:{_JOINING})\b\W*){{0,2}}", re.IGNORECASE)


class Names(Protocol):
    """What is needed of the edit memory."""

    def mentions(self, text: str, *, namespace: str) -> tuple[Mention, ...]: ...


LookUp = Callable[[Question], Retrieval]
"""Facts and the gate's decision for a question by its own text."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question of before and what was answered, empty where nothing was."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class _Context:
    """A question of before with what it left out, and the names that a follow-up to it may mean."""

    text: str
    names: tuple[str, ...]


def exchanges(earlier: Sequence[Turn]) -> list[Exchange]:
    """The user's turns, each with the answer behind it; the system's turns name nothing."""
    pairs: list[Exchange] = []
    for turn in earlier:
        if turn.role is TurnRole.USER:
            pairs.append(Exchange(turn.text, ""))
        elif turn.role is TurnRole.ASSISTANT and pairs:
            pairs[-1] = replace(pairs[-1], answer=turn.text)
    return pairs[-MOST_EXCHANGES:]


class FollowUp:
    """Reads one question behind earlier turns; `look_up` is the retriever's."""

    def __init__(self, q: Question, names: Names, look_up: LookUp) -> None:
        self._question, self._names, self._look_up = q, names, look_up
        self._namespace = key_form(q.namespace) or DEFAULT_NAMESPACE
        self._exchanges = exchanges(q.earlier)

    def retrieve(self, alone: Retrieval) -> Retrieval:
        """`alone`, what was retrieved for the question by itself, or what its reading in context gives."""
        mentions = self._mentions(self._question.text)
        forced = self._question.scope is ScopeMode.EDITED and not mentions
        if not self._exchanges or (alone.gate.scope is Scope.EDITED and not forced):
            return alone
        return self._in_context(self._question, mentions, len(self._exchanges)) or alone

    def _in_context(self, q: Question, mentions: Sequence[Mention], place: int) -> Retrieval | None:
        """The best reading of `q` behind the first `place` exchanges; None where none opens the gate."""
        if mentions and not only_names(q.text, mentions):
            return None
        context = self._context(place - 1)
        if mentions:
            exchanged = self._exchanged(context.text, q.text[mentions[0].start : mentions[0].end])
            return self._opened(q, exchanged, "") if exchanged else None
        readings = [self._opened(q, q.text, name) for name in context.names[:MOST_CARRIED]]
        opened = [reading for reading in readings if reading is not None]
        return max(opened, key=lambda reading: reading.gate.score, default=None)

    def _opened(self, q: Question, text: str, name: str) -> Retrieval | None:
        """What `text` gives, with `name` behind it; None where that does not open the gate."""
        retrieval = self._look_up(replace(q, text=with_name(text, name)))
        if not retrieval.citations:
            return None
        # As it is stored: what the model gets of a name that was read in an earlier turn is not that turn's.
        stored = stored_name(retrieval.citations[0].fact, name) if name else ""
        return replace(retrieval, read_as=with_name(text, stored))

    def _context(self, place: int) -> _Context:
        """What the exchange at `place` was about; nothing before the first."""
        if place < 0:
            return _Context("", ())
        exchange = self._exchanges[place]
        text, answer = exchange.question[:READ_CHARS], exchange.answer[:READ_CHARS]
        mentions = self._mentions(text)
        if not mentions or only_names(text, mentions):
            q = replace(self._question, text=text, scope=ScopeMode.AUTO)
            read = self._in_context(q, mentions, place) if text.strip() else None
            if read is not None:
                text, mentions = read.read_as, self._mentions(read.read_as)
        spans = [text[mention.start : mention.end] for mention in mentions]
        spans += [answer[mention.start : mention.end] for mention in self._mentions(answer)]
        return _Context(text, tuple(dict.fromkeys(spans)))

    def _exchanged(self, before: str, name: str) -> str:
        """The question before with `name` in the place of its own; empty where it has none, or several."""
        mentions = self._mentions(before)
        if len(mentions) != 1:
            return ""
        return f"{before[: mentions[0].start]}{name}{before[mentions[0].end :]}"

    def _mentions(self, text: str) -> tuple[Mention, ...]:
        return self._names.mentions(text, namespace=self._namespace)


def with_name(text: str, name: str) -> str:
    """A question that names nothing, with the name that it is about behind it: in any language it may have a
    word for that name or none."""
    return f"{text.rstrip()} ({name})" if name else text


def stored_name(fact: Fact, name: str) -> str:
    """The subject's name that `name` is, as published; its first one where it is a part of one."""
    names = subject_names(fact)
    return next((own for own in names if folded_name(own) == folded_name(name)), next(iter(names), ""))


def only_names(text: str, mentions: Sequence[Mention]) -> bool:
    """Whether a text names one thing and asks for nothing of it by itself: "And in Berlin?"."""
    if len(mentions) != 1:
        return False
    before, behind = text[: mentions[0].start], text[mentions[0].end :]
    return _ONLY_NAMES.fullmatch(before) is not None and not re.search(r"\w", behind)
