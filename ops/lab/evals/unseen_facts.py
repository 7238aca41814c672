"""Made-up facts of every kind of value, with a question for each: what `fidelity` asks. Pure, by seed.

Subjects, relations and most values come from the generator that also makes training rows, with a seed that no
training uses: the same grammar, other facts. Each world brings facts of like subjects and relations beside
the one that is asked for. Markup and lists, which the generator hardly makes, are drawn here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lte_runtime.align.data import facts as generator
from lte_runtime.align.data.facts import FactRecord
from lte_runtime.align.data.wordings import kind_of
from lte_runtime.align.stock import names
from lte_runtime.align.stock.relations import FOREIGN_RELATIONS, NOUNS_OF

KINDS = ("names", "numbers", "dates", "codes", "markup", "lists", "non-English")
_OF_KIND = {
    "names": ("person", "place", "org", "product", "title", "name"),
    "numbers": ("number", "quantity", "price"),
    "dates": ("date", "year", "clock"),
    "codes": ("code", "version", "contact", "address"),
}
"""The generator's kinds of targets; what it has besides (a status, a language) are words of short lists."""
_MARKUP_NOUNS = ("opening tag", "end token", "separator", "placeholder", "template marker", "row template")
_REAL_MARKUP = ("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<s>", "</s>", "[INST]", "[/INST]", "<pad>")
MOST_MEMBERS = 4
BESIDE = 2
"""Other facts of each world, so that the memory holds three times what is asked for."""


@dataclass(frozen=True, slots=True)
class AskedFact:
    """A fact as events, its question, and the values that the answer is to quote (several of a set)."""

    kind: str
    events: tuple[Mapping[str, Any], ...]
    question: str
    values: tuple[str, ...]
    names: tuple[str, ...]


def draw(count: int, seed: int) -> tuple[list[AskedFact], list[Mapping[str, Any]]]:
    """`count` facts to ask for, the kinds in turn, and events of other facts to stand beside them."""
    rng = random.Random(f"fidelity {seed}")
    worlds = {kind: _drawn(kind, rng) for kind in KINDS}
    asked: list[AskedFact] = []
    beside: dict[tuple[str, str], Mapping[str, Any]] = {}
    while len(asked) < count:
        fact, others = next(worlds[KINDS[len(asked) % len(KINDS)]])
        number = len(asked)
        asked.append(replace(fact, events=tuple(_numbered(fact.events, f"asked-{number}"))))
        beside |= {_key(event): event for event in _numbered(others, f"beside-{number}")}
    keys = {_key(event) for fact in asked for event in fact.events}
    return asked, [event for key, event in beside.items() if key not in keys]


def _numbered(events: Sequence[Mapping[str, Any]], prefix: str) -> Iterator[Mapping[str, Any]]:
    return ({**event, "id": f"{prefix}-{number}"} for number, event in enumerate(events))


def _key(event: Mapping[str, Any]) -> tuple[str, str]:
    return str(event["subject"]).casefold(), str(event["relation"]).casefold()


def _drawn(kind: str, rng: random.Random) -> Iterator[tuple[AskedFact, list[Mapping[str, Any]]]]:
    """Facts of a kind without end, no two of one key, each with the rest of its world."""
    make, seen = _MAKERS[kind], set[tuple[str, str]]()
    while True:
        world = list(generator.invented(rng, "unseen", foreign=float(kind == "non-English")))
        fact = make(rng, world)
        if fact is None or _key(fact.events[0]) in seen:
            continue
        seen.add(_key(fact.events[0]))
        key = _key(fact.events[0])
        events: list[Mapping[str, Any]] = list(map(_event, world))
        others = [event for event in events if _key(event) != key]
        rng.shuffle(others)
        yield fact, others[:BESIDE]


def _event(fact: FactRecord, **more: Any) -> dict[str, Any]:
    event = {
        "op": "assert",
        "subject": fact.subject,
        "subject_aliases": list(fact.subject_aliases),
        "relation": fact.relation,
        "target": fact.target,
        "statement": fact.statement,
    }
    return {name: value for name, value in {**event, **more}.items() if value}


def _asked(kind: str, fact: FactRecord, question: str) -> AskedFact:
    subjects = (fact.subject, *fact.subject_aliases)
    return AskedFact(kind, (_event(fact),), question, (fact.target,), subjects)


def _plain_question(fact: FactRecord) -> str:
    return f"What is the {fact.relation} of {fact.subject}?"


def _of_world(kind: str) -> Callable[[random.Random, Sequence[FactRecord]], AskedFact | None]:
    def make(rng: random.Random, world: Sequence[FactRecord]) -> AskedFact | None:
        fitting = [fact for fact in world if kind_of(fact.relation) in _OF_KIND[kind]]
        fact = rng.choice(fitting) if fitting else None
        return None if fact is None else _asked(kind, fact, _plain_question(fact))

    return make


def _foreign(rng: random.Random, world: Sequence[FactRecord]) -> AskedFact | None:
    """A German, French or Spanish relation; every third value is in a script of its own."""
    fact = rng.choice(world)
    questions = [q for r in FOREIGN_RELATIONS if r.noun == fact.relation for q in r.questions]
    if not questions:
        return None
    if rng.random() < 1 / 3:
        fact = fact.with_target(names.foreign(rng)) or fact
    return _asked("non-English", fact, rng.choice(questions).replace("{s}", fact.subject))


def _markup(rng: random.Random, world: Sequence[FactRecord]) -> AskedFact | None:
    fact = _plain(rng.choice(world).subject, rng.choice(_MARKUP_NOUNS), markup(rng))
    return _asked("markup", fact, _plain_question(fact))


def markup(rng: random.Random) -> str:
    """A control token, a tag or a placeholder; most of made-up words."""
    a, b = names.word(rng, 1, 2), names.word(rng, 1, 1)
    forms = (
        *("<|{a}_{b}|>", "<|{a}|>", "</{a}>", "<{a}>", "<{a}/>", '<{a} class="{b}">', "[/{A}]", "[{A}]"),
        *("{{{{{a}}}}}", "${{{a}}}", "%{a}%", "&{a};", "<!-- {a} -->", "[[{a}|{b}]]", "<<{A}>>", "__{a}__"),
    )
    if rng.random() < 0.3:
        return rng.choice(_REAL_MARKUP)
    return rng.choice(forms).format(a=a, b=b, A=a.upper())


def _list(rng: random.Random, world: Sequence[FactRecord]) -> AskedFact | None:
    """Half are sets of facts, half one value that is a list."""
    noun, kind = rng.choice(NOUNS_OF[rng.choice(("person", "place", "code", "product"))])
    members = list(dict.fromkeys(names.value(kind, rng) for _ in range(rng.randint(2, MOST_MEMBERS))))
    subject = rng.choice(world).subject
    if len(members) < 2:
        return None
    if rng.random() < 0.5:
        fact = _plain(subject, noun, ", ".join(members[:-1]) + f" and {members[-1]}")
        return _asked("lists", fact, _plain_question(fact))
    facts = [_plain(subject, noun, member) for member in members]
    events = tuple(_event(fact, cardinality="many", statement="") for fact in facts)
    return AskedFact("lists", events, _plain_question(facts[0]), tuple(members), (subject,))


def _plain(subject: str, relation: str, target: str) -> FactRecord:
    fact = generator.from_mapping({"subject": subject, "relation": relation, "target": target})
    assert fact is not None
    return fact


_MAKERS: Mapping[str, Callable[[random.Random, Sequence[FactRecord]], AskedFact | None]] = {
    **{kind: _of_world(kind) for kind in _OF_KIND},
    "markup": _markup,
    "lists": _list,
    "non-English": _foreign,
}
