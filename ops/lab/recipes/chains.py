"""Questions over several facts: chains within the prompt, and chains that end in what the base remembers."""

from __future__ import annotations

import random
from hashlib import sha256

from lte_runtime.align.stock import names
from lte_runtime.align.stock.relations import NOUN_KINDS, SUBJECT_KINDS
from lte_runtime.align.stock.sources import Sources, StockFact
from ops.lab.recipes.invented import item, noun, noun_slot, slot_of, target_of
from ops.lab.recipes.matching import roughen
from ops.lab.recipes.rows import Statement, TextRow, Turn

BETWEEN = [pair for pair in NOUN_KINDS if pair[1] in ("person", "org", "place", "product")]
"""Relations whose values can be subjects again."""


def path(rng: random.Random, subject: str, noun: str) -> str:
    """What the relation leads to from a subject, or from another path."""
    if rng.random() < 0.25 and not subject.startswith("the "):
        return f"{subject}'s {noun}"
    return f"the {noun} of {subject}"


def chain_row(sources: Sources, rng: random.Random) -> TextRow:
    """Two to four facts, each about the one before's target, and the question for the last target.

    The prompt holds them all in order or shuffled, or, as a daemon gives it that followed the chain itself,
    the last one alone.
    """
    hops = rng.choices((2, 3, 4), (0.6, 0.25, 0.15))[0]
    subject = question_subject = names.value(rng.choice(SUBJECT_KINDS), rng)
    items: list[Statement] = []
    for relation_noun, kind in rng.sample(BETWEEN, hops - 1):
        target = names.value(kind, rng)
        items.append(item(rng, subject, noun_slot(rng, relation_noun, kind), target, question_subject))
        subject, question_subject = target, path(rng, question_subject, relation_noun)
    slot = slot_of(rng, "product", sources) if rng.random() < 0.3 else noun_slot(rng, *noun(rng))
    target = target_of(rng, slot.target, sources)
    last = item(rng, subject, slot, target, question_subject)
    facts = [*(fact.text for fact in items), last.text]
    roll = rng.random()
    if roll < 0.4:
        facts = facts[-1:]
    elif roll < 0.55:
        rng.shuffle(facts)
    if rng.random() < 0.2:
        beside = item(rng, names.person(rng), slot, target_of(rng, slot.target, sources))
        facts.insert(rng.randint(0, len(facts)), beside.text)
    turns = [Turn(_capitalised(roughen(rng, rng.choice(last.questions))), target)]
    if len(facts) > 2 and rng.random() < 0.5:
        turns.insert(rng.randrange(2), Turn(_capitalised(rng.choice(items[0].questions)), items[0].target))
    return TextRow(tuple(turns), tuple(facts), kind="chain")


LEADS = {
    "country": "home country;country of origin;host country;export market;destination",
    "city": "home city;main site;birthplace;meeting place;venue;location;headquarters;training ground",
    "us": "home state;state of registration;branch state;region",
    "company": "manufacturer;main supplier;employer;main customer;insurer;parent company;owner",
    "brand": "main brand;favourite brand;supplier",
    "club": "partner club;former club;favourite team;opponent",
    "element": "main material;main ingredient;coating;catalyst",
    "organisation": "parent organisation;partner;member organisation;main client",
    "university": "university;alma mater;research partner;employer",
    "airport": "home airport;base;destination airport",
    "landmark": "meeting place;motif;backdrop",
    "river": "nearest river;water source;border river",
    "book": "favourite book;literary model;source book",
    "film": "favourite film;film model;opening film",
    "song": "opening song;theme song;anthem",
    "painting": "cover picture;motif;best-known loan",
    "invention": "main subject;key component",
}
"""What an invented thing can have that the stock knows more about, by the first word of a relation's name."""


def composed(fact: StockFact) -> bool:
    """Whether the stream asks for this stock fact through another; a fifth is left out, to measure with."""
    return sha256(f"{fact.relation} {fact.subject}".encode()).digest()[0] % 5 != 0


def compose_row(sources: Sources, rng: random.Random) -> TextRow:
    """A fact that leads to something known, and a question for what is known about that."""
    while True:
        fact = rng.choice(sources.stock) if sources.stock else None
        if fact is None:
            return chain_row(sources, rng)
        leads = LEADS.get(fact.relation.partition("_")[0])
        if leads and composed(fact):
            break
    lead, subject = rng.choice(leads.split(";")), names.value(rng.choice(SUBJECT_KINDS), rng)
    lead_fact = item(rng, subject, noun_slot(rng, lead, "any"), fact.subject)
    question = rng.choice(fact.questions).replace(fact.subject, path(rng, subject, lead))
    facts = [lead_fact.text]
    if rng.random() < 0.25:
        other = item(rng, subject, noun_slot(rng, *noun(rng)), names.name(rng))
        facts.insert(rng.randrange(2), other.text)
    turns = [Turn(_capitalised(roughen(rng, question)), fact.target)]
    if rng.random() < 0.3:
        turns.insert(rng.randrange(2), Turn(rng.choice(lead_fact.questions), fact.subject))
    return TextRow(tuple(turns), tuple(facts), kind="compose")


def _capitalised(question: str) -> str:
    return question[0].upper() + question[1:] if question.startswith("the ") else question
