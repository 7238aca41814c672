"""Values of the training stream: facts with their wordings, rows of turns, the base's prompt forms."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Statement:
    """One fact as text, with the questions that ask for it (first those nearest to the statement)."""

    subject: str
    target: str
    text: str
    questions: tuple[str, ...]
    noun: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer, neither with special tokens."""

    user: str
    answer: str


@dataclass(frozen=True, slots=True)
class Row:
    """One training row. With `facts` the first turn's question stands behind them.

    `text` rows are running text: every token counts and there are no turns; what stands in `lead` comes
    before the text and does not count. With `spans` (places in the text) only those places count.
    """

    turns: tuple[Turn, ...] = ()
    facts: tuple[str, ...] = ()
    text: str = ""
    lead: str = ""
    spans: tuple[tuple[int, int], ...] = ()
    kind: str = ""


FORMS = (
    "{block}\n{q}",
    "{block} {q}",
    "Passage: {block}\nQuestion: {q}",
    "Facts:\n{list}\nQuestion: {q}",
    "{block}\n\n{q}",
    "Notes:\n{numbers}\n{q}",
    "{lines}\n{q}",
    "Read this: {block}\nNow answer: {q}",
    "Known: {block} Asked: {q}",
    "{numbers}\n\nQ: {q}",
    "Context: {lines}\n\nQuestion: {q}",
    "{list}\n{q}",
    "Use this information to answer.\n\nInformation:\n{lines}\n\nQuestion:\n{q}",
    "Below you find some news. Reply to the question after it.\n\n<news>\n{numbers}\n</news>\n\n{q}",
    "Here are facts that hold now; answer by them.\n\n[Facts]\n{lines}\n\n[Query]\n{q}",
    "Memory:\n{list}\n\nUser asks: {q}",
)


def base_prompt(rng: random.Random, facts: Sequence[str], question: str) -> str:
    """Facts and question in one of the base model's own forms (never the LTE form)."""
    if not facts:
        return question if rng.random() < 0.85 else f"Question: {question}"
    form = rng.choice(FORMS)
    return form.format(
        block=" ".join(facts),
        lines="\n".join(facts),
        list="\n".join(f"- {fact}" for fact in facts),
        numbers="\n".join(f"({number}) {fact}" for number, fact in enumerate(facts, 1)),
        q=question,
    )
