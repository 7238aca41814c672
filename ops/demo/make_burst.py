"""Writes burst.jsonl from burst_pools.txt: facts in the families of relations that the model never saw.

`python -m ops.demo.make_burst` rewrites the file beside it; the same pools and seed give the same bytes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
SEED = 20261127
MONTHS = "January February March April May June July August September October November December".split()
# The last subjects of each family are told while the training runs: no adapter can have learned them.
LATE = 10
Values = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class BurstRelation:
    """`values` to draw from, or one kind in angle brackets; `questions` and `statements` with {s} and {t}."""

    name: str
    values: tuple[str, ...]
    statements: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(slots=True)
class Family:
    """One family with its publisher, relations and subjects."""

    name: str
    publisher: str
    relations: list[BurstRelation] = field(default_factory=list)
    subjects: tuple[str, ...] = ()


def read_pools(text: str) -> tuple[list[Family], Values]:
    """The families, and the lists that kinds of values are made from."""
    blocks = [block for block in text.split("@ ")[1:] if block.strip()]
    *family_blocks, values = ([line for line in block.splitlines() if line] for block in blocks)
    lists = (line.split("|") for line in values[1:])
    values_by_kind = {kind: tuple(entries.split(";")) for kind, entries in lists}
    return [_family(lines) for lines in family_blocks], values_by_kind


def _family(lines: list[str]) -> Family:
    name, publisher = lines[0].split("|")
    family = Family(name, publisher, subjects=tuple(lines[-1].split(";")))
    for line in lines[1 : lines.index("=")]:
        relation, *lists = line.split("|")
        family.relations.append(BurstRelation(relation, *(tuple(entry.split(";")) for entry in lists)))
    return family


def _value(relation: BurstRelation, rng: random.Random, values: Values) -> str:
    kinds: dict[str, Callable[[], str]] = {
        "<person>": lambda: f"{rng.choice(values['first'])} {rng.choice(values['last'])}",
        "<date>": lambda: f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {rng.randint(2027, 2034)}",
        "<number>": lambda: f"{rng.choice('BCDFGKLNPRST')}{rng.choice('AEIOU')}-{rng.randint(1000, 99999)}",
        "<fee>": lambda: f"{rng.choice('€$£')}{rng.randint(4, 480)} a {rng.choice(('month', 'year'))}",
        "<people>": lambda: f"{rng.randint(18, 4200):,} participants",
        "<port>": lambda: rng.choice(values["port"]),
        "<company>": lambda: rng.choice(values["company"]),
    }
    draw = kinds.get(relation.values[0])
    return draw() if draw else rng.choice(relation.values)


def events(families: list[Family], values: Values) -> Iterator[dict[str, object]]:
    """One event for each subject and relation, with a question; `late` ones are told during the training."""
    rng = random.Random(SEED)
    for family in families:
        for number, subject in enumerate(family.subjects):
            for relation in family.relations:
                target = _value(relation, rng, values)
                statement = rng.choice(relation.statements).format(s=subject, t=target)
                slug = f"{family.name}-{number:02d}-{relation.name}".replace(" ", "-")
                event = {
                    "id": f"burst-{slug}",
                    "op": "assert",
                    "subject": subject,
                    "relation": relation.name,
                    "target": target,
                    "statement": statement[:1].upper() + statement[1:],
                    "source": {
                        "uri": f"urn:fiction:burst:{family.name.replace(' ', '-')}:{number}",
                        "publisher": family.publisher,
                    },
                }
                late = number >= len(family.subjects) - LATE
                question = rng.choice(relation.questions).format(s=subject)
                yield {"family": family.name, "late": late, "question": question, "event": event}


def main() -> None:
    families, values = read_pools((HERE / "burst_pools.txt").read_text(encoding="utf-8"))
    lines = [json.dumps(row, ensure_ascii=False) for row in events(families, values)]
    (HERE / "burst.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
