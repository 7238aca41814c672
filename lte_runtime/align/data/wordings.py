"""How facts are asked: wordings written for relations, and wordings learnt from the facts at hand. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lte_runtime.align.data.facts import FactRecord
from lte_runtime.align.stock.relations import (
    FOREIGN_RELATIONS,
    NOUN_KINDS,
    QUESTIONS,
    WHO,
    WORDED_RELATIONS,
    Relation,
)

GENERIC = tuple(dict.fromkeys(QUESTIONS))
TWO_HOPS = (
    "{w} is the {b} of the {a} of {s}?",
    "{w} is the {b} of {s}'s {a}?",
    "The {b} of the {a} of {s} is",
    "Tell me the {b} of the {a} of {s}.",
    "Which {b} does the {a} of {s} have?",
)
REVERSED = (
    "{t} is the {n} of",
    "Of what is {t} the {n}?",
    "Whose {n} is {t}?",
    "What has {t} as its {n}?",
)
FORMER = (
    "What was the {n} of {s} before {t}?",
    "What was the {n} of {s} before it changed to {t}?",
    "Before {t}, what was the {n} of {s}?",
    "What was the previous {n} of {s}?",
    "What was {s}'s former {n}?",
    "What did {s} have as its {n} before?",
    "What was the {n} of {s} before the last change?",
    "Tell me the earlier {n} of {s}.",
)
_NOW = re.compile(r" (is|are) (.+)\?")
PLEASE = ("Please answer: {q}", "I would like to know this. {q}", "Tell me: {q}", "Quick question: {q}")

_WRITTEN = {
    relation.noun.casefold(): relation.questions for relation in (*WORDED_RELATIONS, *FOREIGN_RELATIONS)
}
_KIND = {noun.casefold(): kind for noun, kind in NOUN_KINDS} | {
    relation.noun.casefold(): relation.target for relation in (*WORDED_RELATIONS, *FOREIGN_RELATIONS)
}
_NAMED_KINDS = ("person", "code", "title", "product", "contact", "address")
"""Kinds of targets that name one thing, so that the question can be turned round."""


def kind_of(relation: str) -> str:
    """The kind of a relation's targets (person, org, place, date, ...); empty where it is not known."""
    return _KIND.get(relation.casefold(), "")


def turns_round(relation: str) -> bool:
    """Whether "whose RELATION is TARGET" has one answer, as far as the relation tells."""
    return kind_of(relation) in _NAMED_KINDS


@dataclass(frozen=True, slots=True)
class Wordings:
    """Ways to ask for a fact. `learnt` are forms with {s}, by what the fact's own prompt is like."""

    learnt: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: Iterable[FactRecord]) -> Wordings:
        """Learns from facts that tell a rephrasing: it fits all whose prompt differs in the subject alone."""
        forms: dict[str, dict[str, None]] = defaultdict(dict)
        for fact in facts:
            for text in fact.rephrased:
                if fact.subject and fact.subject in text:
                    forms[_form(fact)][text.replace(fact.subject, "{s}")] = None
        return cls({form: tuple(texts) for form, texts in forms.items()})

    def verbatim(self, fact: FactRecord) -> tuple[str, ...]:
        """The fact's own key as a question or cloze."""
        if fact.prompt:
            return (fact.prompt,)
        return (
            f"The {fact.relation} of {fact.subject} is",
            f"What is the {fact.relation} of {fact.subject}?",
        )

    def rephrased(self, fact: FactRecord, name: str = "") -> tuple[str, ...]:
        """Other ways to ask, the subject called `name` where given; never the verbatim ones."""
        called = name or fact.subject
        forms = [*self._forms(fact)]
        questions = [form.replace("{s}", called) for form in forms] if called else []
        if not name:
            questions += [*fact.rephrased]
        if not questions and fact.prompt:
            questions += [form.format(q=_named(fact.prompt, fact.subject, name)) for form in PLEASE]
        barred = set(self.verbatim(fact))
        return tuple(dict.fromkeys(text for text in questions if text not in barred))

    def former(self, fact: FactRecord, later: str) -> tuple[str, ...]:
        """Ways to ask for the fact's value as one that was followed by `later`."""
        if not (fact.subject and fact.relation):
            return ()
        general = [form.format(n=fact.relation, s=fact.subject, t=later) for form in FORMER]
        now = filter(None, map(_NOW.search, self.rephrased(fact)))
        verbs = {"is": "was", "are": "were"}
        turned_back = [
            f"{m.string[: m.start()]} {verbs[m[1]]} {m[2]} {before}?"
            for m in now
            for before in (f"before {later}", "before")
        ]
        return (*general, *turned_back)

    def _forms(self, fact: FactRecord) -> Sequence[str]:
        """Forms with {s}: learnt for prompts like this, written for the relation, and general ones."""
        learnt = self.learnt.get(_form(fact), ())
        if not fact.relation:
            return learnt
        nouns = GENERIC + (tuple(WHO) if kind_of(fact.relation) == "person" else ())
        general = tuple(form.replace("{n}", fact.relation) for form in nouns)
        return learnt + _WRITTEN.get(fact.relation.casefold(), ()) + general


def other_relations(relation: str) -> Sequence[Relation]:
    """Written relations that a subject with this one may have too, in the same tables, without this one.

    Those whose targets are of the same kind stand twice: a question for them is the hardest to tell apart.
    """
    for table in (WORDED_RELATIONS, FOREIGN_RELATIONS):
        named = [other for other in table if other.noun.casefold() == relation.casefold()]
        if named:
            kinds, targets = {r.subject for r in named}, {r.target for r in named}
            others = [r for r in table if r.subject in kinds and r not in named]
            return [*others, *(r for r in others if r.target in targets)]
    return ()


def two_hops(form: str, first: FactRecord, relation: str) -> str:
    """A question for `relation` of what `first` tells."""
    word = "Who" if kind_of(relation) == "person" else "What"
    return form.format(w=word, b=relation, a=first.relation, s=first.subject)


def turned(form: str, fact: FactRecord) -> str:
    """A question for the subject of a fact."""
    return form.format(t=fact.target, n=fact.relation)


def _form(fact: FactRecord) -> str:
    """What all facts of one relation share: the relation, or the prompt without its subject."""
    return fact.relation.casefold() or (fact.prompt.replace(fact.subject, "{s}") if fact.subject else "")


def _named(prompt: str, subject: str, name: str) -> str:
    return re.sub(re.escape(subject), lambda _: name, prompt, count=1) if name and subject else prompt
