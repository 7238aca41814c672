"""Writes gate.jsonl from gate_pools.txt: stored facts, rephrasings, and questions that they do not answer.

`python tests/data/make_gate.py` rewrites the file beside it; the same pools and seed give the same bytes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SEED = 20260601
SPLITS = ("calibration", "test")
FACTS_PER_SUBJECT = 2
HERE = Path(__file__).parent

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Relation:
    """One relation of a kind: values to draw from, rephrased questions, questions of the reversed sense."""

    name: str
    targets: tuple[str, ...]
    questions: tuple[str, ...]
    reversed: tuple[str, ...]


@dataclass(slots=True)
class Kind:
    """Subjects of one kind: (stored, another of the kind, nearly the same name); only the first is stored."""

    name: str
    relations: list[Relation] = field(default_factory=list)
    subjects: list[tuple[str, str, str]] = field(default_factory=list)


def read_pools(text: str) -> tuple[list[Kind], list[str]]:
    """The kinds and the unrelated questions."""
    kinds: list[Kind] = []
    unrelated: list[str] = []
    for line in text.splitlines():
        if not line or line == "=" or line.startswith("#"):
            continue
        if line.startswith("@ "):
            kinds.append(Kind(line[2:]))
        elif kinds[-1].name == "unrelated":
            unrelated.append(line)
        else:
            _add(kinds[-1], line.split("|"))
    return kinds[:-1], unrelated


def _add(kind: Kind, parts: list[str]) -> None:
    if len(parts) == 3:
        kind.subjects.append((parts[0], parts[1], parts[2]))
    else:
        lists = [tuple(part.split(";")) for part in parts[1:]]
        kind.relations.append(Relation(parts[0], *lists))


def _sentence(template: str, subject: str) -> str:
    text = template.format(s=subject)
    return text[:1].upper() + text[1:]


def _event(
    kind: Kind, number: int, relation: Relation, subject: str, rng: random.Random
) -> dict[str, object]:
    publisher = f"urn:fiction:gate:{kind.name}"
    return {
        "id": f"gate-{kind.name}-{number:02d}-{relation.name.replace(' ', '-')}",
        "op": "assert",
        "subject": subject,
        "relation": relation.name,
        "target": rng.choice(relation.targets),
        "source": {"uri": f"{publisher}:{number}", "publisher": publisher},
    }


def _negatives(
    relation: Relation, other: Relation, names: tuple[str, str, str], wording: int, rng: random.Random
) -> Iterator[tuple[str, str]]:
    subject, neighbour, near = names
    yield "other_relation", _sentence(rng.choice(other.questions), subject)
    yield "neighbour_subject", _sentence(rng.choice(relation.questions), neighbour)
    yield "reversed_polarity", _sentence(relation.reversed[wording], subject)
    yield "near_identical_name", _sentence(rng.choice(relation.questions), near)


def _rows_of(kind: Kind, number: int, split: str, rng: random.Random) -> Iterator[Row]:
    """The facts of one subject and the questions about it; a whole subject stands in one split."""
    names = kind.subjects[number]
    mixed = rng.sample(kind.relations, len(kind.relations))
    stored, others = mixed[:FACTS_PER_SUBJECT], mixed[FACTS_PER_SUBJECT:]
    for relation, other in zip(stored, others, strict=False):
        event = _event(kind, number, relation, names[0], rng)
        yield {"event": event, "split": split}
        for question in rng.sample(relation.questions, 2):
            asked = _sentence(question, names[0])
            yield {"question": asked, "label": "in", "event_id": event["id"], "split": split}
        for sort, asked in _negatives(relation, other, names, SPLITS.index(split), rng):
            yield {
                "question": asked,
                "label": "out",
                "kind": sort,
                "near_event_id": event["id"],
                "split": split,
            }


def make_rows(text: str, seed: int = SEED) -> list[Row]:
    """All rows: facts first, then questions, unrelated ones last."""
    rng = random.Random(seed)
    kinds, unrelated = read_pools(text)
    subjects = [(kind, number) for kind in kinds for number in range(len(kind.subjects))]
    mixed = [
        row
        for place, (kind, number) in enumerate(subjects)
        for row in _rows_of(kind, number, SPLITS[place % 2], rng)
    ]
    facts = [row for row in mixed if "event" in row]
    asked = [row for row in mixed if "question" in row]
    for number, question in enumerate(unrelated):
        split = SPLITS[number % 2]
        none: Row = {"question": question, "label": "out", "kind": "unrelated", "near_event_id": None}
        asked.append({**none, "split": split})
    return facts + asked


def main() -> None:
    rows = make_rows((HERE / "gate_pools.txt").read_text(encoding="utf-8"))
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (HERE / "gate.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
