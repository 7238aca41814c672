"""Relations with the questions that ask for them, from the tables that ship and those beside this module."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lte_runtime.align.stock import relations
from lte_runtime.align.stock.everyday import kinds
from lte_runtime.types import Vectors

Encode = Callable[[Sequence[str]], Vectors]

FOLDER = Path(__file__).parent
ALIKE, ALIKE_IN_GROUP = 0.62, 0.8
"""Cosine of two nouns from which they may ask for the same; within a group that tells its relations apart."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One relation: the questions that ask for it, those near it that do not, in texts with `{s}`.

    Topics of one `group` are about the same kind of thing, so that the questions of one are no questions of
    another, but where they share a wording. `clozes` are beginnings of sentences that ask for it too.
    """

    noun: str
    asking: tuple[str, ...]
    near: tuple[str, ...]
    group: str
    language: str = "en"
    clozes: tuple[str, ...] = ()


def topics() -> list[Topic]:
    """The relations of all tables."""
    return [*_stock(), *_foreign(), *_worded(), *(t for path in _own_tables() for t in _own(path)), *_facts()]


def table(name: str) -> list[list[str]]:
    """The lines of a table beside this module, in parts."""
    lines = (FOLDER / name).read_text("utf-8").splitlines()
    return [line.split("|") for line in lines if line and not line.startswith("#")]


def half(noun: str) -> int:
    """0 or 1, for splits by relation."""
    return zlib.crc32(noun.encode()) % 2


def _stock() -> Iterator[Topic]:
    for kind in kinds():
        yield from (Topic(r.noun, r.asking, r.other, kind.name) for r in kind.relations)
    for r in relations.WORDED_RELATIONS:
        yield Topic(r.noun, r.questions, (), f"worded {r.subject}")
    for noun, kind_name in relations.NOUN_KINDS:
        yield Topic(noun, (), (), f"noun {kind_name}")


def _foreign() -> Iterator[Topic]:
    for r in relations.FOREIGN_RELATIONS:
        language = _language(r.questions[0])
        yield Topic(r.noun, r.questions, (), f"{language} {r.subject}", language)


def _language(question: str) -> str:
    if question.startswith("¿"):
        return "es"
    return "fr" if question.endswith(" ?") else "de"


def _worded() -> Iterator[Topic]:
    for noun, asking, near in table("wordings.txt"):
        yield Topic(noun, _parts(asking), _parts(near), "common")


def _own_tables() -> list[Path]:
    return sorted(FOLDER.glob("relations_*.txt"))


def _own(path: Path) -> Iterator[Topic]:
    """Lines `relation|questions for it|questions near it` under `@ kind`; the file name has the language."""
    language, group = path.stem.removeprefix("relations_"), ""
    for row in table(path.name):
        if len(row) == 1:
            group = f"{language} own {row[0].removeprefix('@ ')}"
        else:
            noun, asking, near = row
            yield Topic(noun, _parts(asking), _parts(near), group, language)


def _facts() -> Iterator[Topic]:
    raw = json.loads((relations.TABLES.parent / "facts/relations.json").read_text("utf-8"))
    for name, r in raw.items():
        group = f"facts {name.partition('_')[0]}"
        yield Topic(r["relation"], tuple(r["questions"]), (), group, clozes=tuple(r["clozes"]))


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(";") if part)


def similar(known: Sequence[Topic], encode: Encode) -> Callable[[Topic, Topic], bool]:
    """Whether two topics may ask for the same: alike nouns, see `ALIKE`, or a shared wording."""
    nouns = list(dict.fromkeys(topic.noun for topic in known))
    vectors = dict(zip(nouns, encode(nouns), strict=True))

    def alike(a: Topic, b: Topic) -> bool:
        if a.noun == b.noun or not set(a.asking).isdisjoint(b.asking):
            return True
        limit = ALIKE_IN_GROUP if a.group == b.group and a.near else ALIKE
        return float(vectors[a.noun] @ vectors[b.noun]) > limit

    return alike
