"""Pairs from other people's data, read by path: KnowEdit outside the half for judging, ParaRel's patterns."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from lte_runtime.align.stock.split import held_out
from ops.lab.evals import knowedit
from ops.lab.evals.knowedit import Record
from ops.lab.gate.pairs import NAME, Pair

SETS = ("zsre", "wiki_recent", "wiki_counterfact")
_LOCALITY_EACH, _REASONING_EACH = 4, 2
PARAREL_PAIRS = 500


def knowedit_pairs(directory: Path) -> list[Pair]:
    """Prompts and rephrasings, locality probes, and questions for something beyond the fact."""
    pairs: list[Pair] = []
    for name in SETS:
        records = {r.key: r for r in knowedit.read(directory / f"{name}.json") if not held_out(r.subject)}
        pairs += [pair for record in records.values() for pair in _record_pairs(record, name)]
    return pairs


def _record_pairs(record: Record, name: str) -> Iterator[Pair]:
    view = without(record.prompt, record.subject)
    if view is None:
        return

    def masked(texts: list[str]) -> Iterator[str]:
        return (question for text in texts if (question := without(text, record.subject)))

    for question in masked([record.prompt, record.rephrase]):
        yield Pair(question, view, asks=1.0, relation=view, sort=f"{name} asks")
    for texts in record.locality.values():
        for question in masked(list(texts[:_LOCALITY_EACH])):
            yield Pair(question, view, relation=view, sort=f"{name} near")
    reasoning = [text for text, _ in record.portability.get("Reasoning", ())[:_REASONING_EACH]]
    for question in masked(reasoning):
        yield Pair(question, view, beyond=0.8, relation=view, sort=f"{name} beyond", weight=0.5)


def without(text: str, subject: str) -> str | None:
    """`text` with the subject's name taken out; None where it does not stand there."""
    place = text.casefold().find(subject.casefold())
    if place < 0 or len(text.casefold()) != len(text):
        return None
    return text[:place] + NAME + text[place + len(subject) :]


def pararel_pairs(directory: Path, seed: int, count: int = PARAREL_PAIRS) -> list[Pair]:
    """Beginnings of sentences for one relation, against those for another."""
    draw = random.Random(seed)
    patterns: dict[str, list[str]] = defaultdict(list)
    for line in (directory / "patterns.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        text = row["pattern"].strip(" .")
        if text.endswith("[Y]") and "[X]" in text:
            patterns[row["relation"]].append(text.removesuffix("[Y]").strip().replace("[X]", NAME))
    names = sorted(name for name, texts in patterns.items() if len(texts) > 1)
    pairs: list[Pair] = []
    for _ in range(count // 2):
        name, other = draw.sample(names, 2)
        question, view = draw.sample(patterns[name], 2)
        pairs.append(Pair(question, view, asks=1.0, relation=name, sort="pararel"))
        pairs.append(
            Pair(draw.choice(patterns[other]), view, relation=name, sort="pararel other", weight=0.7)
        )
    return pairs
