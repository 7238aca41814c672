"""Values of the training stream: facts with their wordings, rows of turns, the base's prompt forms."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

VOCABULARY = 8192
"""Entries of the tokenizer."""
FIRST_ID = 4
"""The ids below are special tokens."""
PLACE = 0xE000
"""In a row's texts the character PLACE + i stands for its i-th piece."""


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
class TextRow:
    """One training row. With `facts` the first turn's question stands behind them.

    `text` rows are running text: every token counts and there are no turns; what stands in `lead` comes
    before the text and does not count. With `spans` (places in the text) only those places count.
    `pieces` are ids that stand in the texts as one character each, from PLACE on.
    """

    turns: tuple[Turn, ...] = ()
    facts: tuple[str, ...] = ()
    text: str = ""
    lead: str = ""
    spans: tuple[tuple[int, int], ...] = ()
    pieces: tuple[tuple[int, ...], ...] = ()
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


OPENINGS = (
    "Read the notes and answer.",
    "What follows is current; use it for the question at the end.",
    "Some things have changed. Take note of them and then answer what is asked.",
    "You get a list of statements and a question.",
    "Keep in mind what is said here when you answer.",
    "Please look at this first and reply afterwards.",
    "The statements given next are true. The last line asks about them.",
    "Answer the query with what you are told.",
    "Here is what our records say today, followed by somebody's question.",
    "Kindly consider this message and give a short answer at the end.",
    "Study the text, then complete the last sentence or answer the last question.",
    "A colleague left these remarks. Reply to the customer with their help.",
)
FACTS_LABELS = (
    "Facts Notes Records News Memo Message Data Statements Context Updates Knowledge Given Text".split()
)
QUESTION_LABELS = "Query Asked Task Request Prompt Q User Customer Problem Line".split()
REPLY_LABELS = "Reply Response A Output Result Solution Then".split()
LABEL_STYLES = ("{}:", "[{}]", "[{}]:", "<{}>", "## {}", "{} -", "*{}*", "({})", "{}")


def _label(rng: random.Random, words: Sequence[str], mark: str) -> str:
    chosen = rng.choice(words)
    if rng.random() < 0.25:
        chosen = f"{rng.choice(('New', 'Current', 'Latest', 'Our', 'Given', 'Important'))} {chosen}"
    return mark.format(chosen if rng.random() < 0.8 else chosen.lower())


def drawn_form(rng: random.Random) -> str:
    """A frame put together at random: opening words, labels in one style, gaps, a place for the answer."""
    mark, gap = rng.choice(LABEL_STYLES), rng.choice(("\n", "\n\n", " ", "\n"))
    inner = rng.choice(("\n", " "))
    parts = [rng.choice(OPENINGS)] if rng.random() < 0.6 else []
    facts_slot = rng.choice(("{block}", "{lines}", "{list}", "{numbers}"))
    parts.append(_label(rng, FACTS_LABELS, mark) + inner + facts_slot)
    parts.append(_label(rng, QUESTION_LABELS, mark) + inner + "{q}" if rng.random() < 0.8 else "{q}")
    if rng.random() < 0.4:
        parts.append(_label(rng, REPLY_LABELS, mark))
    return gap.join(parts)


def base_prompt(rng: random.Random, facts: Sequence[str], question: str) -> str:
    """Facts and question in one of the base model's own forms (never the LTE form)."""
    if not facts:
        return question if rng.random() < 0.85 else f"Question: {question}"
    form = rng.choice(FORMS) if rng.random() < 0.4 else drawn_form(rng)
    return form.format(
        block=" ".join(facts),
        lines="\n".join(facts),
        list="\n".join(f"- {fact}" for fact in facts),
        numbers="\n".join(f"({number}) {fact}" for number, fact in enumerate(facts, 1)),
        q=question,
    )
