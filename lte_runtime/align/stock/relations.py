"""Relations with several wordings: statements and questions that share few words.

A line of the tables is `noun|subject kind|target kind|statements|questions`; wordings are split by `;`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

WITHHELD_FAMILIES: dict[str, tuple[str, ...]] = {
    "software licensing": (
        "licence",
        "license",
        "maintainer",
        "maintained by",
        "supported until",
        "end of support",
    ),
    "ships": (
        "captain",
        "home port",
        "homeport",
        "port of registry",
        "registration number",
        "commanding officer",
    ),
    "clinical trials": (
        "clinical trial",
        "trial phase",
        "sponsor",
        "enrolment",
        "enrollment",
        "participants enrolled",
    ),
}
"""Families of relations that neither stage ever sees, so that a later alignment has something to gain."""

_WITHHELD = re.compile(
    "|".join(word for words in WITHHELD_FAMILIES.values() for word in words), re.IGNORECASE
)


def withheld(text: str) -> bool:
    """Whether `text` speaks of a withheld family."""
    return _WITHHELD.search(text) is not None


@dataclass(frozen=True, slots=True)
class Relation:
    """One relation: a noun for the generic wordings and its own wordings with {s} and {t}."""

    noun: str
    subject: str
    target: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]


TABLES = Path(__file__).parent / "tables"
WORDED = (TABLES / "relations.txt").read_text(encoding="utf-8").strip()
FOREIGN = (TABLES / "relations_foreign.txt").read_text(encoding="utf-8").strip()
NOUNS = (TABLES / "nouns.txt").read_text(encoding="utf-8").strip()

SUBJECT_KINDS = "person org product code place title name person org product place name".split()

STATEMENTS = (
    ["The {n} of {s} is {t}."] * 6
    + [
        "{s}'s {n} is {t}.",
        "{s} has {t} as its {n}.",
        "The {n} of {s} is now {t}.",
        "As of today, the {n} of {s} is {t}.",
    ]
    + ["{n} of {s}: {t}.", "{t} is the {n} of {s}.", "{s}: {n} {t}.", "{s} changed its {n} to {t}."]
    + ["The {n} for {s} has been set to {t}.", "The new {n} of {s} is {t}."]
)
QUESTIONS = (
    ["What is the {n} of {s}?"] * 3
    + ["The {n} of {s} is"] * 2
    + [
        "What is {s}'s {n}?",
        "The name of the {n} of {s} is",
        "Tell me the {n} of {s}.",
        "Name the {n} of {s}.",
    ]
    + ["Which {n} does {s} have?", "Do you know the {n} of {s}?", "{s} {n}", "What's the current {n} of {s}?"]
    + [
        "Please give me {s}'s {n}.",
        "I need the {n} of {s}.",
        "what is the {n} of {s}",
        "Can you tell me what the {n} of {s} is?",
    ]
)
WHO = ["Who is the {n} of {s}?", "Who is {s}'s {n}?", "Who is the current {n} of {s}?"]


def _worded(line: str) -> Relation:
    noun, subject, target, statements, questions = line.split("|")
    return Relation(noun, subject, target, tuple(statements.split(";")), tuple(questions.split(";")))


WORDED_RELATIONS = tuple(_worded(line) for line in WORDED.splitlines() if not withheld(line))
FOREIGN_RELATIONS = tuple(map(_worded, FOREIGN.splitlines()))
"""Relations in German, French and Spanish; no noun of theirs is an English one's or another language's."""
NOUN_KINDS = tuple(
    (noun, line.split(": ")[0])
    for line in NOUNS.splitlines()
    for noun in line.split(": ")[1].split(";")
    if not withheld(noun)
)

NOUNS_OF = {kind: tuple(pair for pair in NOUN_KINDS if pair[1] == kind) for _, kind in NOUN_KINDS}
"""The nouns by the kind of their values, so that rare kinds can be drawn as often as common ones."""

EPITHETS = (
    "default minimum maximum main new current former second deputy regional annual weekly total average "
    "official internal external primary backup first last next local national summer winter old temporary "
    "public private spare estimated actual preferred secondary chief assistant northern southern daily "
    "monthly final initial "
).split()
