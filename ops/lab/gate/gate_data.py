"""Questions with known scope over invented facts, for calibrating the gate where nobody has labelled any.

Rows are as `lte gate calibrate` reads them: facts are events; questions carry `label` (in or out), `kind`,
`event_id` (the fact that answers) or `near_event_id` (the fact that must stay out), and `split`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

from lte_runtime.align.stock import names
from lte_runtime.align.stock.everyday import Everyday, SubjectKind, formed, kinds, unlike
from lte_runtime.align.stock.relations import NOUN_KINDS, WORDED_RELATIONS

Row = dict[str, Any]

PLAIN = (
    "What is the {n} of {s}?",
    "What is {s}'s {n}?",
    "Tell me the {n} of {s}.",
    "The {n} of {s} is",
    "{s} {n}",
    "which {n} does {s} have",
    "Do you know the current {n} of {s}?",
    "Can you tell me what the {n} of {s} is?",
    "The name of the {n} of {s} is",
)
REVERSED = (
    "Which {n} does {s} not have?",
    "The {n} of {s}, which is not {t}, is",
    "What is not the {n} of {s}?",
    "Apart from {t}, what was proposed as {n} of {s}?",
    "Who or what was the former {n} of {s}?",
    "What was the previous {n} of {s} before {t}?",
    "Which {n} was never that of {s}?",
    "Name another {n} of {s} than {t}.",
    "What did {s} have as its {n} earlier?",
    "Except for {t}, which {n} of {s} is there?",
)
ABOUT = (
    "Which {n} did {s} give up?",
    "Which {n} was taken away from {s}?",
    "Which {n} of {s} is out of order?",
    "Which {n} did {s} lose?",
    "Which {n} was refused to {s}?",
    "Which {n} was ruled out for {s}?",
    "Which {n} is not the one of {s}?",
    "When does {s} have no {n}?",
    "Where is there no {n} of {s}?",
    "Who no longer decides on the {n} of {s}?",
    "Which {n} was scrapped at {s}?",
    "Which {n} has {s} never had?",
    "Who was against the {n} of {s}?",
    "Who complained about the {n} of {s}?",
    "Why was the {n} of {s} changed?",
    "When was the {n} of {s} changed?",
    "Who changed the {n} of {s}?",
    "Who decides on the {n} of {s}?",
    "Who told us the {n} of {s}?",
    "Which {n} was proposed for {s} but not taken?",
    "Which {n} did {s} have until last year?",
    "What was wrong with the {n} of {s}?",
    "Which {n} was shut down at {s}?",
    "Which {n} was {s} removed from?",
    "From which {n} was {s} thrown out?",
    "Which {n} ran out for {s}?",
    "Which {n} was cancelled for {s}?",
    "What replaced the {n} of {s}?",
    "How many people know the {n} of {s}?",
    "Which {n} of {s} was overruled?",
)
"""Questions that name the relation and ask for its end, a refusal, or something about it."""

_KINDS = "person org product code place title name".split()
_CHAINS = (
    "What is the {b} of the {a} of {s}?",
    "Which {b} does the {a} of {s} have?",
    "The {b} of {s}'s {a} is",
)


def generate(seed: int, worlds: int = 120, facts_each: int = 8) -> list[Row]:
    """Seeded rows: `worlds` groups of facts, each wholly in the calibration or the test split."""
    rng = random.Random(seed)
    return [row for world in range(worlds) for row in _world(rng, world, facts_each)]


def _world(rng: random.Random, world: int, facts_each: int) -> Iterator[Row]:
    split = "calibration" if world % 2 == 0 else "test"
    facts = [_fact(rng, f"g{world}-{i}") for i in range(facts_each)]
    facts += [_sibling(rng, f) for f in facts[: facts_each // 2]]
    linked = [(f, _linked(rng, f)) for f in facts[: facts_each // 2]]
    yield from facts
    yield from (second for _, second in linked)
    for fact in facts:
        yield from (row | {"split": split} for row in _questions(rng, fact, facts))
    for a, b in linked:
        for text in _two_hops(rng, a, b):
            yield {"question": text, "label": "in", "kind": "two_hop", "event_id": b["id"], "split": split}


def _two_hops(rng: random.Random, a: Row, b: Row) -> tuple[str, str]:
    """Questions for the target of `b`, a fact about the target of `a`, that name the subject of `a` alone."""
    plain = rng.choice(_CHAINS).format(a=a["relation"], b=b["relation"], s=a["subject"])
    described = f"the {a['relation']} of {a['subject']}"
    verbs = [
        s[4:-1] for r in WORDED_RELATIONS if r.noun == a["relation"] for s in r.statements if s[:4] == "{t} "
    ]
    if verbs and rng.random() < 0.7:
        thing = rng.choice(("person", "one", "company", "place", "group"))
        described = f"the {thing} that {_say(rng.choice(verbs), a['subject'])}"
    return plain, _say(rng.choice(_wordings(b["relation"])), described)


def _fact(rng: random.Random, ident: str) -> Row:
    kind = rng.choice(_KINDS)
    subject = names.value(kind, rng)
    relation, target = _relation(rng, kind)
    row: Row = {"op": "assert", "id": ident, "subject": subject, "relation": relation}
    row["target"] = names.value(target, rng)
    if rng.random() < 0.4:
        row["subject_aliases"] = [_alias(rng, subject, kind)]
    return row | {"_kind": kind}


def _relation(rng: random.Random, kind: str) -> tuple[str, str]:
    if rng.random() < 0.6:
        worded = [r for r in WORDED_RELATIONS if r.subject == kind]
        relation = rng.choice(worded)
        return relation.noun, relation.target
    return rng.choice(NOUN_KINDS)


def _sibling(rng: random.Random, fact: Row) -> Row:
    relation, target = _relation(rng, fact["_kind"])
    while relation == fact["relation"]:
        relation, target = _relation(rng, fact["_kind"])
    return fact | {"id": fact["id"] + "s", "relation": relation, "target": names.value(target, rng)}


def _linked(rng: random.Random, fact: Row) -> Row:
    """A fact about the target of another one, so that two hops have an answer."""
    kind = rng.choice(("person", "org"))
    relation, target = _relation(rng, kind)
    row: Row = {"op": "assert", "id": fact["id"] + "l", "subject": fact["target"], "relation": relation}
    return row | {"target": names.value(target, rng)}


def _alias(rng: random.Random, subject: str, kind: str) -> str:
    initials = "".join(word[0] for word in subject.split() if word[0].isalnum())
    if len(initials) > 2 and rng.random() < 0.5:
        return initials.upper()
    return names.value(kind, rng)


def _wordings(noun: str) -> tuple[str, ...]:
    questions = next((r.questions for r in WORDED_RELATIONS if r.noun == noun), ())
    return questions + tuple(p.replace("{n}", noun) for p in PLAIN)


def _questions(rng: random.Random, fact: Row, facts: Sequence[Row]) -> Iterator[Row]:
    subject, target = fact["subject"], fact["target"]
    own = _wordings(fact["relation"])
    rephrasings = rng.sample(own, 2)
    for text in rephrasings:
        yield _inside(fact, "rephrase", _say(text, subject))
    yield _inside(fact, "lower_case", _say(rng.choice(own), subject).lower())
    yield _inside(fact, "typo", _say(rng.choice(own), _misspell(rng, subject)))
    for alias in fact.get("subject_aliases", ()):
        yield _inside(fact, "alias", _say(rng.choice(own), alias))
    stored = {f["relation"] for f in facts if f["subject"] == subject}
    for _ in range(2):
        other = _relation(rng, fact["_kind"])[0]
        if _apart(other, stored):
            yield _outside(fact, "same_subject", _say(rng.choice(_wordings(other)), subject))
    yield _outside(fact, "neighbour", _say(rng.choice(own), names.value(fact["_kind"], rng)))
    yield _outside(fact, "near_name", _say(rng.choice(own), _near(rng, subject)))
    reverse = rng.choice(REVERSED).replace("{n}", fact["relation"]).replace("{t}", target)
    yield _outside(fact, "reversed", _say(reverse, subject))


def _say(text: str, subject: str) -> str:
    return text.replace("{s}", subject)


def _inside(fact: Row, kind: str, text: str) -> Row:
    return {"question": text, "label": "in", "kind": kind, "event_id": fact["id"]}


def _outside(fact: Row, kind: str, text: str) -> Row:
    return {"question": text, "label": "out", "kind": kind, "near_event_id": fact["id"]}


def _apart(noun: str, stored: set[str]) -> bool:
    """Whether `noun` shares no wording with a stored relation: else its question would be in scope."""
    mine = {*_wordings(noun), *noun.split()}
    return all(mine.isdisjoint({*_wordings(s), *s.split()}) for s in stored)


def _misspell(rng: random.Random, name: str) -> str:
    """Two neighbouring letters exchanged inside a long word; short names and codes stay."""
    places = [m.start() for m in re.finditer(r"(?<=[^\W\d_]{2})[^\W\d_]{2}(?=[^\W\d_])", name)]
    if len(name) < 8 or not places:
        return name
    i = rng.choice(places)
    return name[:i] + name[i + 1] + name[i] + name[i + 2 :]


def _near(rng: random.Random, name: str) -> str:
    """Another name that is nearly the same: other digits, a longer name, or one word exchanged."""
    digits = [i for i, c in enumerate(name) if c.isdigit()]
    if digits:
        i = digits[-1]
        return name[:i] + str((int(name[i]) + rng.randint(1, 8)) % 10) + name[i + 1 :]
    parts = name.split()
    if len(parts) > 1 and rng.random() < 0.6:
        i = rng.randrange(len(parts))
        return " ".join([*parts[:i], names.name(rng), *parts[i + 1 :]])
    return f"{name} {rng.choice(['Labs', 'North', 'II', '2', 'Junior', 'Mini', 'West', 'B'])}"


def default_rows(seed: int, worlds: int = 24) -> list[Row]:
    """Invented facts and questions of both sorts, each in a namespace of its own."""
    own = {"namespace": "everyday"}
    generated = [row | {"namespace": "generated"} for row in generate(seed, worlds)]
    everyday_rows = [row | own for row in everyday(seed, worlds=1)]
    return generated + everyday_rows + [row | own | {"namespace": "about"} for row in about(seed)]


def everyday(seed: int, worlds: int = 24) -> list[Row]:
    """Seeded rows: each world asks for every relation of every kind once, of new subjects."""
    rng = random.Random(seed)
    return [
        row
        for world in range(worlds)
        for kind in kinds()
        for number, relation in enumerate(kind.relations)
        for row in _everyday_rows(rng, kind, relation, f"e{world}-{kind.name}-{number}")
    ]


def _everyday_rows(rng: random.Random, kind: SubjectKind, relation: Everyday, ident: str) -> Iterator[Row]:
    """One fact, sometimes with another one about the same subject, and questions about both."""
    subject = formed(rng, kind)
    fact: Row = {"op": "assert", "id": ident, "subject": subject, "relation": relation.noun}
    fact["target"] = rng.choice(relation.targets)
    alias = _shortened(rng, subject) if rng.random() < 0.5 else ""
    if alias:
        fact["subject_aliases"] = [alias]
    yield fact
    others = [r for r in kind.relations if unlike(r, relation)]
    if rng.random() < 0.3:
        second = rng.choice(others)
        target = rng.choice(second.targets)
        yield fact | {"id": ident + "s", "relation": second.noun, "target": target}
        others = [r for r in others if unlike(r, second)]
    for text in rng.sample(relation.asking, min(2, len(relation.asking))):
        name = alias if alias and rng.random() < 0.5 else subject
        yield _inside(fact, "rephrase", _say(text, name))
    if relation.other:
        yield _outside(fact, "other_question", _say(rng.choice(relation.other), subject))
    for other in rng.sample(others, 2):
        yield _outside(
            fact, "same_subject", _say(rng.choice(other.asking), rng.choice([subject, alias or subject]))
        )


def about(seed: int) -> list[Row]:
    """Seeded rows: for every everyday relation one new fact, asked for once, and two questions about it."""
    rng = random.Random(seed)
    rows: list[Row] = []
    for kind in kinds():
        for number, relation in enumerate(kind.relations):
            fact: Row = {"op": "assert", "id": f"a-{kind.name}-{number}", "subject": formed(rng, kind)}
            fact |= {"relation": relation.noun, "target": rng.choice(relation.targets)}
            plain = rng.choice(PLAIN).replace("{n}", relation.noun)
            rows += [fact, _inside(fact, "plain", _say(plain, fact["subject"]))]
            for text in rng.sample(ABOUT, 2):
                question = _say(text.replace("{n}", relation.noun), fact["subject"])
                rows.append(_outside(fact, "reversed", question))
    return rows


def _shortened(rng: random.Random, subject: str) -> str:
    """Initials, a code or a shorter form, as people declare them as aliases; empty where there is none."""
    parts = [word for word in subject.split() if word != "the"]
    initials = "".join(word[0] for word in parts if word[0].isalnum()).upper()
    options = [f"{initials or 'X'}-{rng.randint(2, 99)}"]
    if len(parts) > 1:
        options += [" ".join(parts[:-1]), " ".join(parts[1:])]
    options += [initials] if len(initials) > 2 else []
    return rng.choice(options)
