"""Invented facts in many wordings: relations as drawn for a row, near subjects, values, second names."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from lte_runtime.align.stock import names
from lte_runtime.align.stock.relations import (
    EPITHETS,
    NOUN_KINDS,
    NOUNS_OF,
    QUESTIONS,
    STATEMENTS,
    WHO,
    WORDED_RELATIONS,
)
from lte_runtime.align.stock.sources import Sources
from lte_runtime.answer.prompt import explained
from ops.lab.recipes.matching import strip_accents
from ops.lab.recipes.rows import Statement


@dataclass(frozen=True, slots=True)
class Slot:
    """A relation as drawn for one row: its wordings and the kind of its target."""

    noun: str
    target: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]


def slot_of(rng: random.Random, subject_kind: str, sources: Sources) -> Slot:
    roll = rng.random()
    if roll < 0.45:
        fitting = [relation for relation in WORDED_RELATIONS if relation.subject == subject_kind]
        if fitting:
            relation = rng.choice(fitting)
            generic = noun_slot(rng, relation.noun, relation.target)
            return Slot(
                relation.noun,
                relation.target,
                relation.statements + generic.statements[:2],
                relation.questions + generic.questions[:3],
            )
    if roll < 0.6 and sources.templates:
        return _template_slot(rng, sources)
    word, kind = noun(rng)
    return noun_slot(rng, word, kind)


def noun(rng: random.Random) -> tuple[str, str]:
    """A noun for a relation with its target's kind, often made longer: no list of nouns to learn."""
    noun, kind = rng.choice(NOUN_KINDS if rng.random() < 0.7 else NOUNS_OF[rng.choice(sorted(NOUNS_OF))])
    roll = rng.random()
    if roll < 0.25:
        return f"{rng.choice(EPITHETS)} {noun}", kind
    if roll < 0.32:
        return f"{rng.choice(names.THINGS + names.GOODS)} {noun}", kind
    return noun, kind


def noun_slot(rng: random.Random, noun: str, kind: str) -> Slot:
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


def item(rng: random.Random, subject: str, slot: Slot, target: str, mention: str = "") -> Statement:
    """A fact in one wording; `mention` is how its questions name the subject."""
    question_subject = mention or subject
    if subject[0].isupper() and not question_subject.startswith("the ") and rng.random() < 0.06:
        subject, question_subject = f"the {subject}", f"the {question_subject}"
    text = rng.choice(slot.statements).replace("{s}", subject).replace("{t}", target).replace("..", ".")
    questions = tuple(form.replace("{s}", question_subject) for form in slot.questions)
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


def near_subjects(rng: random.Random, kind: str, count: int, sources: Sources) -> list[str]:
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
    figure, roll = names.digits(rng), rng.random()
    if roll < 0.25:
        return f"{figure} {rng.choice(names.UNITS)}"
    if roll < 0.4 and sources.texts:
        return f"{figure} {' '.join(rng.choice(sources.texts).split()[:2]).lower()}"
    if roll < 0.6:
        span = f"{figure} {rng.choice(('to', '-', 'and', 'x', 'or', 'until'))} {names.digits(rng)}"
        return f"{span} {rng.choice(names.UNITS)}" if roll < 0.45 else span
    return figure


def target_of(rng: random.Random, kind: str, sources: Sources) -> str:
    roll = rng.random()
    if roll < 0.18:
        return phrase(sources, rng)
    if roll < 0.30:
        return names.compound(rng)
    if sources.objects and kind in ("any", "name", "title", "field", "org", "place") and rng.random() < 0.4:
        return rng.choice(sources.objects)
    if kind == "any":
        kind = rng.choice(("person", "place", "org", "title", "name", "occupation", "field", "country"))
    return names.value(kind, rng)


def slots_of(rng: random.Random, kind: str, count: int, sources: Sources) -> list[Slot]:
    """Relations of one row, sometimes with nearly the same noun."""
    slots: dict[str, Slot] = {}
    while len(slots) < count:
        slot = slot_of(rng, kind, sources)
        if slots and rng.random() < 0.15:
            word, target = noun(rng)
            first_slot = next(iter(slots.values()))
            if " " not in first_slot.noun:
                word, target = f"{rng.choice(EPITHETS)} {first_slot.noun}", first_slot.target
            slot = noun_slot(rng, word, target)
        slots.setdefault(slot.noun, slot)
    return list(slots.values())


def reworded(rng: random.Random, slot: Slot) -> Slot:
    """The relation, asked in words of another one with values of the same kind.

    With one fact given about what is asked for, its words need not be the question's.
    """
    same_kind = [
        other for other in WORDED_RELATIONS if other.target == slot.target and other.noun != slot.noun
    ]
    return replace(slot, questions=rng.choice(same_kind).questions) if same_kind else slot


def aliased(rng: random.Random, subject: str, slot: Slot, target: str) -> Statement:
    """A fact whose subject is sometimes asked by a declared alias or by a plainer name."""
    roll = rng.random()
    if roll < 0.18:
        alias = alias_of(rng, subject)
        # The note stands there also when the question names the subject itself.
        plain = item(rng, subject, slot, target, alias if roll < 0.13 else "")
        return replace(plain, text=explained(plain.text, subject, alias))
    if roll < 0.22:
        return item(rng, subject, slot, target, strip_accents(subject))
    return item(rng, subject, slot, target)


def alias_of(rng: random.Random, subject: str) -> str:
    """A second name: made of the first (initials, a word of it), a code, or a wholly other one."""
    words = subject.split()
    aliases = [
        names.name(rng),
        names.code(rng),
        f"{rng.choice(NICKNAMES)} {names.name(rng, 1, 2)}",
        words[0].lower(),
    ]
    if len(words) > 1:
        aliases += [
            "".join(word[0].upper() for word in words),
            words[-1],
            f"the {words[-1]}",
            "".join(words),
            words[0],
        ]
    return rng.choice(aliases)


NICKNAMES = ("Old", "Big", "The", "Little", "Project", "Team")
