"""The training stream: seeded rows that teach to remember, to read, and to choose among near facts."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lte_runtime.embedded import names
from lte_runtime.embedded.drills import copy_row, drill_row
from lte_runtime.embedded.exclude import Excluded
from lte_runtime.embedded.matching import (
    ask,
    grid,
    lookup_row,
    recall_row,
    repeat_row,
    roughen,
    strip_accents,
)
from lte_runtime.embedded.relations import (
    EPITHETS,
    NOUN_KINDS,
    NOUNS_OF,
    QUESTIONS,
    STATEMENTS,
    SUBJECT_KINDS,
    WHO,
    WORDED_RELATIONS,
    withheld,
)
from lte_runtime.embedded.rows import Row, Statement, Turn
from lte_runtime.embedded.sources import Sources

ALIAS_NOTE = " ({s} is also known as {a}.)"


@dataclass(frozen=True)
class Generator:
    """Makes rows from a random stream. Equal seeds give equal rows."""

    sources: Sources
    excluded: Excluded = field(default_factory=Excluded)

    def rows(self, rng: random.Random, mixture: Sequence[tuple[str, float]], count: int) -> list[Row]:
        """`count` rows, kinds drawn by weight; withheld relations and excluded facts are drawn again."""
        kinds, weights = zip(*mixture, strict=True)
        made: list[Row] = []
        while len(made) < count:
            row = MAKERS[rng.choices(kinds, weights)[0]](self.sources, rng)
            text = row_text(row)
            if not withheld(text) and not self.excluded.hit(text):
                made.append(row)
        return made


def row_text(row: Row) -> str:
    """All that a row says, line by line."""
    return "\n".join([row.lead, row.text, *row.facts, *(f"{turn.user}\n{turn.answer}" for turn in row.turns)])


@dataclass(frozen=True, slots=True)
class Slot:
    """A relation as drawn for one row: its wordings and the kind of its target."""

    noun: str
    target: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]


def _slot(rng: random.Random, subject_kind: str, sources: Sources) -> Slot:
    roll = rng.random()
    if roll < 0.45:
        fitting = [relation for relation in WORDED_RELATIONS if relation.subject == subject_kind]
        if fitting:
            relation = rng.choice(fitting)
            generic = _noun_slot(rng, relation.noun, relation.target)
            return Slot(
                relation.noun,
                relation.target,
                relation.statements + generic.statements[:2],
                relation.questions + generic.questions[:3],
            )
    if roll < 0.6 and sources.templates:
        return _template_slot(rng, sources)
    noun, kind = _noun(rng)
    return _noun_slot(rng, noun, kind)


def _noun(rng: random.Random) -> tuple[str, str]:
    """A noun for a relation with its target's kind, often made longer: no list of nouns to learn."""
    noun, kind = rng.choice(NOUN_KINDS if rng.random() < 0.7 else NOUNS_OF[rng.choice(sorted(NOUNS_OF))])
    roll = rng.random()
    if roll < 0.25:
        return f"{rng.choice(EPITHETS)} {noun}", kind
    if roll < 0.32:
        return f"{rng.choice(names.THINGS + names.GOODS)} {noun}", kind
    return noun, kind


def _noun_slot(rng: random.Random, noun: str, kind: str) -> Slot:
    statements = tuple(form.replace("{n}", noun) for form in rng.sample(STATEMENTS, 3))
    questions = [form.replace("{n}", noun) for form in rng.sample(QUESTIONS, 4)]
    if kind == "person":
        questions += [form.replace("{n}", noun) for form in WHO]
    rng.shuffle(questions)
    return Slot(noun, kind, statements, tuple(questions))


def _template_slot(rng: random.Random, sources: Sources) -> Slot:
    """A question or cloze of the benchmark's training half, on an invented subject."""
    template = rng.choice(sources.templates)
    return Slot(template.prompts[0], template.kind, (template.prompts[0] + " {t}.",), template.prompts)


def _item(rng: random.Random, subject: str, slot: Slot, target: str, mention: str = "") -> Statement:
    """A fact in one wording; `mention` is how its questions name the subject."""
    asked = mention or subject
    if subject[0].isupper() and rng.random() < 0.06:
        subject, asked = f"the {subject}", f"the {asked}"
    text = rng.choice(slot.statements).replace("{s}", subject).replace("{t}", target).replace("..", ".")
    questions = tuple(form.replace("{s}", asked) for form in slot.questions)
    return Statement(
        subject, target, text[0].upper() + text[1:] if rng.random() < 0.7 else text, questions, slot.noun
    )


def _near_name(rng: random.Random, subject: str, make: Callable[[random.Random], str]) -> str:
    """Another subject, sometimes nearly the same: another number, another first or last name."""
    if rng.random() < 0.35:
        digits = [place for place, char in enumerate(subject) if char.isdigit()]
        if digits:
            place = rng.choice(digits)
            return subject[:place] + rng.choice("0123456789") + subject[place + 1 :]
        words = subject.split(" ")
        if len(words) > 1:
            words[rng.randrange(len(words))] = names.name(rng, 1, 2)
            return " ".join(words)
    return make(rng)


def _subjects(rng: random.Random, kind: str, count: int, sources: Sources) -> list[str]:
    def make(draw: random.Random) -> str:
        if sources.subjects and draw.random() < 0.25:
            return draw.choice(sources.subjects)
        return names.value(kind, draw)

    chosen = [make(rng)]
    while len(chosen) < count:
        other = _near_name(rng, rng.choice(chosen), make)
        if other not in chosen:
            chosen.append(other)
    return chosen


def phrase(sources: Sources, rng: random.Random, most: int = 5) -> str:
    """Some words of running text, names or digits: any token of the vocabulary must be copied."""
    roll = rng.random()
    if roll < 0.2 or not sources.texts:
        return names.accented(rng, names.value(rng.choice(("person", "place", "org", "name")), rng))
    if roll < 0.35:
        return _figures(sources, rng)
    words = rng.choice(sources.texts).split(" ")
    start = rng.randrange(len(words))
    return " ".join(words[start : start + rng.randint(1, most)]).strip(".,;: \n") or names.name(rng)


def _figures(sources: Sources, rng: random.Random) -> str:
    """Digits alone, with a unit or a word, or from one figure to another."""
    told, roll = names.digits(rng), rng.random()
    if roll < 0.25:
        return f"{told} {rng.choice(names.UNITS)}"
    if roll < 0.4 and sources.texts:
        return f"{told} {' '.join(rng.choice(sources.texts).split()[:2]).lower()}"
    if roll < 0.6:
        span = f"{told} {rng.choice(('to', '-', 'and', 'x', 'or', 'until'))} {names.digits(rng)}"
        return f"{span} {rng.choice(names.UNITS)}" if roll < 0.45 else span
    return told


def echo_row(sources: Sources, rng: random.Random) -> Row:
    """Phrases told twice, in another order the second time, which alone counts: plain copying."""
    told = [phrase(sources, rng, 8) for _ in range(rng.randint(2, 5))]
    gap = rng.choice((" ", "\n", ". ", "; ", " | ", ", "))
    text, spans = "", []
    for said in rng.sample(told, len(told)):
        text += gap
        spans.append((len(text) + len(said.split(" ")[0]) // 2, len(text) + len(said)))
        text += said
    return Row(lead=gap.join(told), text=text, spans=tuple(spans), kind="echo")


def _target(rng: random.Random, kind: str, sources: Sources) -> str:
    if rng.random() < 0.22:
        return phrase(sources, rng)
    if sources.objects and kind in ("any", "name", "title", "field", "org", "place") and rng.random() < 0.4:
        return rng.choice(sources.objects)
    if kind == "any":
        kind = rng.choice(("person", "place", "org", "title", "name", "occupation", "field", "country"))
    return names.value(kind, rng)


def single_row(sources: Sources, rng: random.Random) -> Row:
    """One fact alone: teaches to copy."""
    return reading_row(sources, rng, 1)


def reading_row(sources: Sources, rng: random.Random, count: int = 0) -> Row:
    """One to four facts (or `count`) that share subjects and relations, asked in other words."""
    count = count or rng.choices((1, 2, 3, 4), (0.2, 0.35, 0.3, 0.15))[0]
    cells = grid(rng, count)
    kind = rng.choice(SUBJECT_KINDS)
    subjects = _subjects(rng, kind, 1 + max(row for row, _ in cells), sources)
    slots = _slots(rng, kind, 1 + max(column for _, column in cells), sources)
    items, seen = [], set()
    for row, column in cells:
        target = _target(rng, slots[column].target, sources)
        if target not in seen:
            seen.add(target)
            items.append(_aliased(rng, subjects[row], slots[column], target))
    return ask(rng, items, items, rng.randint(1, 3), "reading")


def _slots(rng: random.Random, kind: str, count: int, sources: Sources) -> list[Slot]:
    """Relations of one row, sometimes with nearly the same noun."""
    slots: dict[str, Slot] = {}
    while len(slots) < count:
        slot = _slot(rng, kind, sources)
        if slots and rng.random() < 0.15:
            noun, target = _noun(rng)
            known = next(iter(slots.values()))
            if " " not in known.noun:
                noun, target = f"{rng.choice(EPITHETS)} {known.noun}", known.target
            slot = _noun_slot(rng, noun, target)
        slots.setdefault(slot.noun, slot)
    return list(slots.values())


def _aliased(rng: random.Random, subject: str, slot: Slot, target: str) -> Statement:
    """A fact whose subject is sometimes asked by a declared alias or by a plainer name."""
    roll = rng.random()
    if roll < 0.12:
        alias = alias_of(rng, subject)
        item = _item(rng, subject, slot, target, alias)
        note = ALIAS_NOTE.format(s=subject, a=alias)
        return Statement(subject, target, item.text + note, item.questions, item.noun)
    if roll < 0.16:
        return _item(rng, subject, slot, target, strip_accents(subject))
    return _item(rng, subject, slot, target)


def alias_of(rng: random.Random, subject: str) -> str:
    """A second name: made of the first (initials, a word of it), a code, or a wholly other one."""
    words = subject.split()
    made = [
        names.name(rng),
        names.code(rng),
        f"{rng.choice(NICKNAMES)} {names.name(rng, 1, 2)}",
        words[0].lower(),
    ]
    if len(words) > 1:
        made += [
            "".join(word[0].upper() for word in words),
            words[-1],
            f"the {words[-1]}",
            "".join(words),
            words[0],
        ]
    return rng.choice(made)


NICKNAMES = ("Old", "Big", "The", "Little", "Project", "Team")


# Chains: two facts, one question.


def two_hop_row(sources: Sources, rng: random.Random) -> Row:
    """Facts S-r1-M and M-r2-T, asked for the r2 of the r1 of S; sometimes a third fact beside them."""
    first_noun = rng.choice(
        [noun for noun, kind in NOUN_KINDS if kind in ("person", "org", "place", "product")]
    )
    kind = dict(NOUN_KINDS)[first_noun]
    second_noun, second_kind = _noun(rng)
    subject, middle = names.value(rng.choice(SUBJECT_KINDS), rng), names.value(kind, rng)
    target = _target(rng, second_kind, sources)
    hop_one = _item(rng, subject, _noun_slot(rng, first_noun, kind), middle)
    hop_two = _item(rng, middle, _noun_slot(rng, second_noun, second_kind), target)
    who = "Who" if second_kind == "person" else "What"
    form = rng.choice(TWO_HOP)
    question = form.format(w=who, a=second_noun, b=first_noun, s=subject)
    facts = [hop_one.text, hop_two.text]
    if rng.random() < 0.25:
        extra = _item(
            rng,
            names.person(rng),
            _noun_slot(rng, second_noun, second_kind),
            _target(rng, second_kind, sources),
        )
        facts.insert(rng.randrange(3), extra.text)
    turns = [Turn(question, target)]
    if rng.random() < 0.5:
        turns.insert(rng.randrange(2), Turn(rng.choice(hop_one.questions), middle))
    if rng.random() < 0.3:
        turns.append(Turn(rng.choice(hop_two.questions), target))
    return Row(tuple(turns), tuple(facts), kind="two_hop")


TWO_HOP = (
    "{w} is the {a} of the {b} of {s}?",
    "{w} is the {a} of {s}'s {b}?",
    "The {a} of the {b} of {s} is",
    "The name of the {a} of the {b} of {s} is",
    "{s}'s {b}: {w} is its {a}?",
    "Tell me the {a} of the {b} of {s}.",
    "Which {a} does the {b} of {s} have?",
)


# Benchmark-like facts, remembered facts, running text.


def edit_row(sources: Sources, rng: random.Random) -> Row:
    """Facts of the benchmarks' training halves as the daemon states them, half with another target."""
    if not sources.edits:
        return reading_row(sources, rng)
    count = rng.choices((1, 2, 3), (0.6, 0.25, 0.15))[0]
    items: dict[str, Statement] = {}
    while len(items) < count:
        record = rng.choice(sources.edits)
        roll = rng.random()
        target = rng.choice(sources.objects) if roll < 0.4 else record.target
        if roll > 0.85:
            target = phrase(sources, rng)
        if not withheld(record.text):
            items[target] = Statement(record.subject, target, f"{record.text} {target}.", record.questions)
    chosen = list(items.values())
    return ask(rng, chosen, chosen, rng.randint(1, count), "edit")


def stock_row(sources: Sources, rng: random.Random) -> Row:
    """A remembered fact without a prompt; sometimes under a changed fact in the prompt, which then counts."""
    if not sources.stock:
        return recall_row(sources, rng)
    fact = rng.choice(sources.stock)
    question = rng.choice(fact.questions)
    if rng.random() < 0.85:
        return Row((Turn(roughen(rng, question), fact.target),), kind="stock")
    target = rng.choice(sources.stock).target if rng.random() < 0.4 else _target(rng, "any", sources)
    text = f"{rng.choice(fact.questions)} {target}."
    return Row((Turn(question, target),), (text,), kind="changed")


def text_row(sources: Sources, rng: random.Random) -> Row:
    """A stretch of running text."""
    if not sources.texts:
        return recall_row(sources, rng)
    words = rng.choice(sources.texts).split(" ")
    start = rng.randrange(max(1, len(words) - 90))
    return Row(text=" ".join(words[start : start + 90]), kind="text")


def open_row(sources: Sources, rng: random.Random) -> Row:
    """An open-domain question with its answer: the form of questions that people ask."""
    if not sources.open_questions:
        return recall_row(sources, rng)
    question, answer = rng.choice(sources.open_questions)
    return Row((Turn(question, answer),), kind="open")


MAKERS: dict[str, Callable[[Sources, random.Random], Row]] = {
    "recall": recall_row,
    "repeat": repeat_row,
    "lookup": lookup_row,
    "echo": echo_row,
    "copy": copy_row,
    "drill": drill_row,
    "single": single_row,
    "reading": reading_row,
    "two_hop": two_hop_row,
    "edit": edit_row,
    "stock": stock_row,
    "text": text_row,
    "open": open_row,
}
