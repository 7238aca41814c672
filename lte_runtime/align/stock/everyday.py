"""Everyday relations by what they are about: how each is asked for, and near questions that are not answered.

A section of `tables/everyday.txt` begins with `@ kind|forms of subjects`; its lines are
`relation|questions for it|questions near it|targets`, parts split by `;`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random

from lte_runtime.align.stock import names
from lte_runtime.align.stock.relations import TABLES, withheld


@dataclass(frozen=True, slots=True)
class Everyday:
    """One relation: questions for it, near ones that are not, examples of targets."""

    noun: str
    asking: tuple[str, ...]
    other: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SubjectKind:
    """What relations are about: forms of subjects with the kinds of `names` in braces."""

    name: str
    forms: tuple[str, ...]
    relations: tuple[Everyday, ...]


@cache
def kinds() -> tuple[SubjectKind, ...]:
    """The sections of the table."""
    sections: list[SubjectKind] = []
    for line in (TABLES / "everyday.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("@ "):
            name, forms = line[2:].split("|")
            sections.append(SubjectKind(name, tuple(forms.split(";")), ()))
        elif not line.startswith("#"):
            noun, *lists = line.split("|")
            relation = Everyday(noun, *(tuple(filter(None, part.split(";"))) for part in lists))
            sections[-1] = replace(sections[-1], relations=(*sections[-1].relations, relation))
    return tuple(sections)


@cache
def trainable(kind: SubjectKind) -> Sequence[Everyday]:
    """The relations of a kind that alignment may see: none of a withheld family."""
    return tuple(r for r in kind.relations if not withheld(f"{r.noun} {' '.join(r.asking)}"))


def formed(rng: Random, kind: SubjectKind) -> str:
    """A new name for a subject."""

    def drawn(match: re.Match[str]) -> str:
        what = match.group(1)
        return str(rng.randint(11, 9999)) if what == "digits" else names.value(what, rng)

    return re.sub(r"\{(\w+)\}", drawn, rng.choice(kind.forms))


def unlike(a: Everyday, b: Everyday) -> bool:
    """Whether they share no wording and no word of their names: one's questions are not the other's."""
    return {*a.asking, *a.noun.split()}.isdisjoint({*b.asking, *b.noun.split()})
