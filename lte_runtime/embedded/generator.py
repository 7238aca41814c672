"""The training stream: seeded rows that teach to remember, to read, and to choose among near facts."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lte_runtime.embedded import names
from lte_runtime.embedded.exclude import Excluded
from lte_runtime.embedded.relations import (
    EPITHETS,
    NOUN_KINDS,
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


def _ask(
    rng: random.Random, items: Sequence[Statement], context: Sequence[Statement], count: int, kind: str
) -> Row:
    """A row over `context` that asks for `count` of `items`, each in one of its wordings."""
    asked = rng.sample(list(items), min(count, len(items)))
    turns = tuple(Turn(_roughen(rng, rng.choice(item.questions)), item.target) for item in asked)
    return Row(turns, tuple(item.text for item in context), kind=kind)


def _roughen(rng: random.Random, question: str) -> str:
    """Now and then the way people type: lower case, no question mark, no accents."""
    roll = rng.random()
    if roll < 0.03:
        return question.lower()
    if roll < 0.06:
        return question.rstrip("?.")
    if roll < 0.08:
        return strip_accents(question)
    return question


def strip_accents(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char))


# Lessons in choosing: a grid of subjects and relations with short values.

SHORT_FORMS = (
    ("{s} {n}: {t}.", "{s} {n}:"),
    ("{n} {s}: {t}.", "{n} {s}:"),
    ("The {n} of {s} is {t}.", "The {n} of {s} is"),
    ("The {n} of {s} is {t}.", "The {n} of {s} is"),
    ("The {n} of {s} is {t}.", "What is the {n} of {s}?"),
    ("The {n} of {s} is {t}.", "What is {s}'s {n}?"),
    ("{s}'s {n} is {t}.", "What is the {n} of {s}?"),
    ("{t} is the {n} of {s}.", "The {n} of {s} is"),
    ("{s} has {t} as its {n}.", "{n} of {s}?"),
)
SHORT_NOUNS = [noun for noun, _ in NOUN_KINDS if " " not in noun]


def _distinct(rng: random.Random, make: Callable[[random.Random], str], count: int) -> list[str]:
    seen: dict[str, None] = {}
    while len(seen) < count:
        seen[make(rng)] = None
    return list(seen)


def _short_subject(rng: random.Random) -> str:
    known = [rng.choice(values) for values in (names.THINGS, names.FIRST, names.LAST, names.CITIES)]
    return rng.choice([names.name(rng, 1, 1), *known, names.name(rng, 1, 2)])


def _grid(rng: random.Random, count: int) -> list[tuple[int, int]]:
    """`count` cells (subject, relation) that share rows and columns, in random order."""
    height = rng.randint(1, count)
    width = max(1, -(-count // height)) + (1 if rng.random() < 0.4 else 0)
    if height == 1:
        width = max(width, count)
    cells = [(row, column) for row in range(height) for column in range(width)]
    return rng.sample(cells, count)


def recall_row(_: Sources, rng: random.Random, most: int = 6) -> Row:
    """Very short facts, several questions: teaches to match subject and relation together."""
    items = _short_items(rng, min(most, rng.choices((2, 3, 4, 5, 6), (0.4, 0.25, 0.15, 0.1, 0.1))[0]))
    return _ask(rng, items, items, 6, "recall")


LOOKUP_FORMS = (
    ("{k}: {t}.", "{k}:"),
    ("{k}: {t}.", "{k}?"),
    ("{k} is {t}.", "What is {k}?"),
    ("{k} is {t}.", "{k} is"),
    ("{k} = {t}", "{k}"),
    ("The {k} is {t}.", "What is the {k}?"),
    ("{t} is the {k}.", "The {k} is"),
    ("{k} has {t}.", "What does {k} have?"),
)


def lookup_row(_: Sources, rng: random.Random) -> Row:
    """Values under a single key each, every one asked: the plainest lesson in matching."""
    count = rng.randint(2, 8)
    make = _short_subject if rng.random() < 0.6 else lambda draw: draw.choice(SHORT_NOUNS)
    keys, targets = _distinct(rng, make, count), _distinct(rng, names.short, count)
    statement, question = rng.choice(LOOKUP_FORMS)
    items = [
        Statement(k, t, statement.format(k=k, t=t), (question.format(k=k),))
        for k, t in zip(keys, targets, strict=True)
    ]
    return _ask(rng, items, items, count, "lookup")


def repeat_row(_: Sources, rng: random.Random) -> Row:
    """Short facts told again in another order, twice: in later tellings every value can be known.

    From a value right behind its key to one behind a whole phrase: each gap is learned from the one before.
    """
    form = rng.choice(REPEAT_FORMS)
    keys, targets = _repeat_values(rng, form, rng.randint(2, 7))
    gap = rng.choice((" ", "\n", ". ", "; "))
    lead = gap.join(form.format(k=k, n=n, t=t) for (k, n), t in zip(keys, targets, strict=True))
    if rng.random() < 0.5:
        form = rng.choice([asked for asked in ASKED_FORMS if ("{n}" in asked) == ("{n}" in form)])
    order = [index for _ in range(2) for index in rng.sample(range(len(keys)), len(keys))]
    text, spans = "", []
    for index in order:
        text += gap + form.partition("{t}")[0].format(k=keys[index][0], n=keys[index][1])
        spans.append((len(text), len(text) + len(targets[index])))
        text += targets[index]
    return Row(lead=lead, text=text, spans=tuple(spans), kind="repeat")


REPEAT_FORMS = (
    *("{k} {t}", "{k}: {t}", "{k} is {t}", "{k} = {t}", "{k} has {t}", "{k} -> {t}", "{k} is now {t}"),
    *("{n} {k}: {t}", "{k} {n}: {t}", "The {n} of {k} is {t}", "{k}'s {n} is {t}", "{n} of {k} is {t}"),
)

ASKED_FORMS = (
    *("{k}? {t}", "What is {k}? {t}", "Q: {k}? A: {t}", "And {k}? It is {t}", "What about {k}? Answer: {t}"),
    *("The {n} of {k}? {t}", "What is the {n} of {k}? {t}", "What is {k}'s {n}? {t}", "{k} {n}? Answer: {t}"),
    *("Q: {n} of {k}? A: {t}", "Which {n} does {k} have? {t}", "Tell me the {n} of {k}. It is {t}"),
)


def _repeat_values(rng: random.Random, form: str, count: int) -> tuple[list[tuple[str, str]], list[str]]:
    """Keys (a subject, or subject and noun) and their short values."""
    targets = _distinct(rng, names.short, count)
    if "{n}" not in form:
        return [(key, "") for key in _distinct(rng, _short_subject, count)], targets
    cells = _grid(rng, count)
    subjects = _distinct(rng, _short_subject, 1 + max(row for row, _ in cells))
    nouns = rng.sample(SHORT_NOUNS, 1 + max(column for _, column in cells))
    return [(subjects[row], nouns[column]) for row, column in cells], targets


def _short_items(rng: random.Random, count: int) -> list[Statement]:
    """Facts of a grid of short subjects and nouns, all in one wording."""
    cells = _grid(rng, count)
    subjects = _distinct(rng, _short_subject, 1 + max(row for row, _ in cells))
    nouns = rng.sample(SHORT_NOUNS, 1 + max(column for _, column in cells))
    targets = _distinct(rng, names.short, count)
    statement, question = rng.choice(SHORT_FORMS)
    return [
        _short_item(subjects[row], nouns[column], target, statement, question)
        for (row, column), target in zip(cells, targets, strict=True)
    ]


def _short_item(s: str, n: str, t: str, statement: str, question: str) -> Statement:
    return Statement(s, t, statement.format(s=s, n=n, t=t), (question.format(s=s, n=n),), n)


# Reading: relations in their own wordings, subjects and targets of every kind.


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
    noun, kind = rng.choice(NOUN_KINDS)
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


def _target(rng: random.Random, kind: str, sources: Sources) -> str:
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
    cells = _grid(rng, count)
    kind = rng.choice(SUBJECT_KINDS)
    subjects = _subjects(rng, kind, 1 + max(row for row, _ in cells), sources)
    slots = _slots(rng, kind, 1 + max(column for _, column in cells), sources)
    items, seen = [], set()
    for row, column in cells:
        target = _target(rng, slots[column].target, sources)
        if target not in seen:
            seen.add(target)
            items.append(_aliased(rng, subjects[row], slots[column], target))
    return _ask(rng, items, items, rng.randint(1, 3), "reading")


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
    """A second name: initials, a part of the name, or a wholly other one."""
    words = subject.split()
    roll = rng.random()
    if len(words) > 1 and roll < 0.25:
        return "".join(word[0].upper() for word in words)
    if len(words) > 1 and roll < 0.45:
        return words[-1]
    if roll < 0.7:
        return names.name(rng)
    return f"{rng.choice(['Old', 'Big', 'The', 'Little', 'Project', 'Team'])} {names.name(rng, 1, 2)}"


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
        target = rng.choice(sources.objects) if rng.random() < 0.5 else record.target
        if not withheld(record.text):
            items[target] = Statement(record.subject, target, f"{record.text} {target}.", record.questions)
    chosen = list(items.values())
    return _ask(rng, chosen, chosen, rng.randint(1, count), "edit")


def stock_row(sources: Sources, rng: random.Random) -> Row:
    """A remembered fact without a prompt; sometimes under a changed fact in the prompt, which then counts."""
    if not sources.stock:
        return recall_row(sources, rng)
    fact = rng.choice(sources.stock)
    question = rng.choice(fact.questions)
    if rng.random() < 0.85:
        return Row((Turn(_roughen(rng, question), fact.target),), kind="stock")
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
    "single": single_row,
    "reading": reading_row,
    "two_hop": two_hop_row,
    "edit": edit_row,
    "stock": stock_row,
    "text": text_row,
    "open": open_row,
}
