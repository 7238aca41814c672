"""Facts that alignment rows are made from: a job's, events, records in KnowEdit's form, or invented ones."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lte_runtime.align.stock import names
from lte_runtime.align.stock.everyday import Everyday, SubjectKind, formed, kinds, trainable, unlike
from lte_runtime.align.stock.relations import (
    FOREIGN_RELATIONS,
    NOUN_KINDS,
    STATEMENTS,
    SUBJECT_KINDS,
    WORDED_RELATIONS,
)
from lte_runtime.answer.prompt import explained, restated
from lte_runtime.errors import BadRequest
from lte_runtime.facts.keys import statement_of, view_of

_CLOZE = re.compile(r"The (?:name of the )?(?P<relation>.+?) of (?P<subject>.+) is")


@dataclass(frozen=True, slots=True)
class FactRecord:
    """One fact. `source` is edits, replay or invented; `rephrased` are questions known for it. `near` are
    questions about its subject that it does not answer; made-up facts alone have them, no file does."""

    edit_id: str
    subject: str
    relation: str
    target: str
    statement: str
    prompt: str = ""
    subject_aliases: tuple[str, ...] = ()
    target_aliases: tuple[str, ...] = ()
    publisher: str = ""
    rephrased: tuple[str, ...] = ()
    source: str = "edits"
    near: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A line of a file of facts, as `from_mapping` reads it."""
        values = asdict(self)
        del values["source"], values["near"]
        return values

    @property
    def view(self) -> str:
        """The target-free words that stand for the fact when neighbours are looked for."""
        return view_of(self.subject, self.relation, self.prompt)

    @property
    def served(self) -> str:
        """The statement as serving tells it: behind the plain sentence, where the publisher's is another."""
        return restated(self.subject, self.relation, self.prompt, self.target, self.statement)

    def explained(self, alias: str) -> str:
        """`served` where a question calls the subject `alias`."""
        return explained(self.served, self.subject, alias)

    def with_target(self, target: str) -> FactRecord | None:
        """The fact with another target; None where its statement does not hold the target exactly once."""
        if self.statement.count(self.target) != 1 or self.target in self.subject:
            return None
        statement = self.statement.replace(self.target, target)
        return replace(self, target=target, target_aliases=(), statement=statement)


def load(path: Path, source: str = "edits") -> tuple[FactRecord, ...]:
    """Facts of a file: JSON Lines of facts or events, or a JSON list in KnowEdit's form.

    Raises `BadRequest` with the line for what cannot be read, and for a file without a fact.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path}: {error}") from None
    facts = tuple(_knowedit(text, path, source) if text.lstrip()[:1] == "[" else _lines(text, path, source))
    if not facts:
        raise BadRequest(f"{path} contains no fact")
    return facts


def _lines(text: str, path: Path, source: str) -> Iterator[FactRecord]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            # Test files wrap an event with its questions.
            fact = from_mapping(row.get("event", row), source)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise BadRequest(f"{path}, line {number}: {error}") from None
        if fact is not None:
            yield fact


def from_mapping(row: Mapping[str, Any], source: str = "edits") -> FactRecord | None:
    """A fact from a JSON object; None for a retraction. Raises `ValueError` for parts that are missing."""
    if row.get("op", "assert") != "assert":
        return None
    subject, relation = str(row.get("subject") or ""), str(row.get("relation") or "")
    prompt, target = str(row.get("prompt") or ""), str(row.get("target") or "")
    if not target or not (prompt or (subject and relation)):
        raise ValueError("a fact needs a target, and subject and relation or a prompt")
    origin = row.get("source")
    publisher = origin.get("publisher") if isinstance(origin, Mapping) else None
    ident = str(row.get("edit_id") or row.get("id") or _derived(subject, relation, prompt, target))
    return FactRecord(
        edit_id=ident,
        subject=subject,
        relation=relation,
        target=target,
        statement=statement_of(subject, relation, prompt, target, str(row.get("statement") or "")),
        prompt=prompt,
        subject_aliases=tuple(map(str, row.get("subject_aliases") or ())),
        target_aliases=tuple(map(str, row.get("target_aliases") or ())),
        publisher=str(row.get("publisher") or publisher or ""),
        rephrased=tuple(map(str, row.get("rephrased") or ())),
        source=source,
    )


def _derived(*parts: str) -> str:
    return "fact-" + hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def _knowedit(text: str, path: Path, source: str) -> Iterator[FactRecord]:
    try:
        records = json.loads(text)
        for record in records:
            if record.get("target_new"):
                yield of_record(record, source)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise BadRequest(f"{path} is not a list of records: {error!r}") from None


def of_record(record: Mapping[str, Any], source: str) -> FactRecord:
    """A cloze "The R of S is" gives a relation; every other prompt stays the fact's key."""
    subject, prompt, target = record["subject"], record["prompt"].strip(), record["target_new"]
    cloze = _CLOZE.fullmatch(prompt)
    relation = cloze["relation"] if cloze and cloze["subject"] == subject else ""
    rephrased = (record.get("rephrase_prompt") or "").strip()
    return FactRecord(
        edit_id=_derived(subject, prompt, target),
        subject=subject,
        relation=relation,
        target=target,
        statement=statement_of("", "", prompt, target),
        prompt=prompt,
        rephrased=(rephrased,) if rephrased else (),
        source=source,
    )


# Invented facts: what keeps the skill general when the live facts are few or all alike.

_BARE = 0.5
"""Share of facts without a sentence of their own: most publishers send none."""
LINKED = ("person", "org", "place", "product")
_PLAIN = tuple(dict.fromkeys(STATEMENTS))
_FOREIGN_KINDS = tuple(relation.subject for relation in FOREIGN_RELATIONS)


@dataclass(frozen=True, slots=True)
class _Relation:
    noun: str
    target: str
    statements: tuple[str, ...] = field(default=_PLAIN)


def invented(
    rng: random.Random, prefix: str, foreign: float = 0.0, everyday: float = 0.0
) -> tuple[FactRecord, ...]:
    """A small world: near facts that share subjects and relations, an alias here and there, and a chain.

    Subjects and targets are made-up names; edit ids are `PREFIX-n`. `foreign` is the share of worlds whose
    relations are German, French or Spanish, `everyday` that of worlds of everyday relations.
    """
    if everyday > 0 and rng.random() < everyday:
        return _everyday_world(rng, prefix)
    is_foreign = foreign > 0 and rng.random() < foreign
    kind = rng.choice(_FOREIGN_KINDS if is_foreign else SUBJECT_KINDS)
    subjects = _subjects(rng, kind, 3)
    relations = _foreign_relations(rng, kind, 3) if is_foreign else _relations(rng, kind, 3)
    facts = [_fact(rng, subject, relation) for subject in subjects for relation in relations]
    facts += [_linked(rng, fact) for fact in facts if _kind_of(fact.relation, relations) in LINKED][:3]
    return tuple(replace(fact, edit_id=f"{prefix}-{number}") for number, fact in enumerate(facts))


def _everyday_world(rng: random.Random, prefix: str) -> tuple[FactRecord, ...]:
    """Three subjects of one kind, each with the same three relations, so that near facts stand beside."""
    kind = rng.choice(kinds())
    relations = rng.sample(trainable(kind), 3)
    subjects = [formed(rng, kind) for _ in range(3)]
    facts = [_everyday_fact(rng, kind, subject, r, relations) for subject in subjects for r in relations]
    return tuple(replace(fact, edit_id=f"{prefix}-{number}") for number, fact in enumerate(facts))


def _everyday_fact(
    rng: random.Random, kind: SubjectKind, subject: str, relation: Everyday, stored: Sequence[Everyday]
) -> FactRecord:
    fact = _fact(rng, subject, _Relation(relation.noun, ""), rng.choice(relation.targets))
    others = [r for r in trainable(kind) if all(unlike(r, other) for other in stored)]
    near = [*relation.other]
    for other in rng.sample(others, min(2, len(others))):
        near += other.asking
    stored_questions = {text for other in stored for text in other.asking}
    return replace(
        fact,
        rephrased=tuple(text.replace("{s}", subject) for text in relation.asking),
        near=tuple(text.replace("{s}", subject) for text in near if text not in stored_questions),
    )


def _subjects(rng: random.Random, kind: str, count: int) -> list[str]:
    """Names of which some differ in a digit or a word alone."""
    chosen = [names.value(kind, rng)]
    while len(chosen) < count:
        other = _near(rng, chosen[-1]) if rng.random() < 0.4 else names.value(kind, rng)
        if other not in chosen:
            chosen.append(other)
    return chosen


def _near(rng: random.Random, subject: str) -> str:
    digits = [place for place, char in enumerate(subject) if char.isdigit()]
    if digits:
        place = rng.choice(digits)
        return subject[:place] + rng.choice("0123456789") + subject[place + 1 :]
    words = subject.split(" ")
    words[rng.randrange(len(words))] = names.name(rng, 1, 2)
    return " ".join(words)


def _relations(rng: random.Random, kind: str, count: int) -> list[_Relation]:
    chosen: dict[str, _Relation] = {}
    fitting = [relation for relation in WORDED_RELATIONS if relation.subject == kind]
    while len(chosen) < count:
        if fitting and rng.random() < 0.5:
            worded = rng.choice(fitting)
            relation = _Relation(worded.noun, worded.target, worded.statements + _PLAIN[:2])
        else:
            relation = _Relation(*rng.choice(NOUN_KINDS))
        chosen[relation.noun] = relation
    return list(chosen.values())


def _foreign_relations(rng: random.Random, kind: str, count: int) -> list[_Relation]:
    fitting = [relation for relation in FOREIGN_RELATIONS if relation.subject == kind]
    drawn = rng.sample(fitting, min(count, len(fitting)))
    return [_Relation(worded.noun, worded.target, worded.statements + _PLAIN[:1]) for worded in drawn]


def _kind_of(noun: str, relations: Sequence[_Relation]) -> str:
    return next((relation.target for relation in relations if relation.noun == noun), "")


def _fact(rng: random.Random, subject: str, relation: _Relation, target: str = "") -> FactRecord:
    target = target or names.value(relation.target, rng)
    statement = _PLAIN[0] if rng.random() < _BARE else rng.choice(relation.statements)
    for mark, text in (("{n}", relation.noun), ("{s}", subject), ("{t}", target)):
        statement = statement.replace(mark, text)
    aliases = (names.name(rng, 1, 2),) if rng.random() < 0.3 else ()
    statement = statement.replace("..", ".")
    if not statement.startswith(target):  # the target is spelled as it is to be answered
        statement = statement[0].upper() + statement[1:]
    return FactRecord(
        "", subject, relation.noun, target, statement, subject_aliases=aliases, source="invented"
    )


def _linked(rng: random.Random, fact: FactRecord) -> FactRecord:
    """A fact about the target of another, so that a question can need both."""
    return _fact(rng, fact.target, _Relation(*rng.choice(NOUN_KINDS)))
