"""Questions whose first hop is an edit and whose second hop only the base can know: the method's main claim.

An invented thing gets a country, company, city ... by an edit; asked is a remembered fact about that. Facts
that the base does not answer by itself are left out, so that every miss is one of using what is known. All
edits are made first; free decoding, exact match.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lte_runtime.embedded import chains, names
from lte_runtime.embedded.sources import StockFact
from lte_runtime.evals import arms
from lte_runtime.evals.arms import Kit
from lte_runtime.evals.baselines import search
from lte_runtime.evals.baselines.protocol import Editor, EditRequest
from lte_runtime.evals.baselines.search import base_answers
from lte_runtime.evals.metrics import matches, mean
from lte_runtime.evals.tally import interval
from lte_runtime.progress import Progress, silent

TOKENS = 32
BRIDGES: Mapping[str, tuple[str, ...]] = {
    "country": ("home country", "country of origin", "host country"),
    "city": ("home city", "main site"),
    "company": ("manufacturer", "main supplier"),
    "club": ("partner club",),
    "us": ("home state",),
    "element": ("main material",),
    "organisation": ("parent organisation",),
}
"""What an edit may say of an invented thing, by the first word of a stock relation's name."""


@dataclass(frozen=True, slots=True)
class Composed:
    """An edit and a question over it; `accepted` are the remembered answers.

    `unseen`: no training has asked for that fact through another one.
    """

    edit: EditRequest
    question: str
    accepted: tuple[str, ...]
    unseen: bool = True


@dataclass(frozen=True, slots=True)
class Read:
    """How a question over an edit was answered: 1.0 for right, 0.0 for wrong."""

    right: float
    first_hop: float
    unseen: bool


def noun_of(fact: StockFact) -> str | None:
    """The relation as a noun, from the wording `The NOUN of SUBJECT is` that every stock fact has."""
    end = f" of {fact.subject} is"
    return next((q[4 : -len(end)] for q in fact.questions if q.startswith("The ") and q.endswith(end)), None)


def composed(fact: StockFact, rng: random.Random) -> Composed | None:
    """A question over `fact`; None for relations that nothing leads to."""
    bridges, noun = BRIDGES.get(fact.relation.partition("_")[0]), noun_of(fact)
    if bridges is None or noun is None:
        return None
    bridge, thing = rng.choice(bridges), names.product(rng)
    form = rng.choice(("What is the {n} of the {b} of {x}?", "The {n} of the {b} of {x} is"))
    edit = EditRequest(thing, f"The {bridge} of {thing} is", fact.subject)
    question = form.format(n=noun, b=bridge, x=thing)
    return Composed(edit, question, (fact.target, *fact.aliases), not chains.composed(fact))


def questions(kit: Kit, count: int, seed: int) -> list[Composed]:
    """At most `count` questions over facts that the base answers right by itself; seeded."""
    rng = random.Random(f"compose {seed}")
    stock = list(kit.supplies.material.generator.sources.stock)
    rng.shuffle(stock)
    made = [(fact, one) for fact in stock if (one := composed(fact, rng)) is not None][: 2 * count]
    said = base_answers(kit.supplies, [fact.questions[0] for fact, _ in made], TOKENS)
    known = [one for (_, one), text in zip(made, said, strict=True) if matches(text, one.accepted)]
    return known[:count]


def run(
    kit: Kit,
    methods: Sequence[str],
    *,
    count: int = 300,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """`{"methods": {name: {"sets": {"compose": figures}}}, "lead": {name: (difference, low, high)}}`.

    `lead` is the share of `ours` less that of the method, on the same questions, with 95 % bounds.
    """
    arms.check(methods)
    made, chosen = questions(kit, count, seed), search.tuned(kit.supplies)
    read: dict[str, list[Read]] = {}
    for number, method in enumerate(methods):
        progress(f"compose {method}", number, len(methods))
        with arms.arm(method, kit, chosen.get(method)) as editor:
            editor.edit([one.edit for one in made])
            read[method] = answered(editor, made)
            editor.undo()
    progress("compose", len(methods), len(methods))
    measured = {name: {"sets": {"compose": figures(found, seed)}} for name, found in read.items()}
    return {"seed": seed, "methods": measured, "lead": leads(read, seed)}


def answered(editor: Editor, made: Sequence[Composed]) -> list[Read]:
    """Each question and its first hop asked once the edits are made."""
    asked = [text for one in made for text in (one.question, one.edit.prompt)]
    said = dict(zip(asked, editor.answer(asked, max_new_tokens=TOKENS), strict=True))
    return [
        Read(
            right=float(matches(said[one.question], one.accepted)),
            first_hop=float(matches(said[one.edit.prompt], (one.edit.target,))),
            unseen=one.unseen,
        )
        for one in made
    ]


def figures(read: Sequence[Read], seed: int = 0) -> dict[str, Any]:
    """Shares of questions right, with 95 % intervals, of first hops right, and of those that are unseen."""
    unseen = [one for one in read if one.unseen]
    return {
        "n": len(read),
        **_share(read, seed),
        "unseen": {"n": len(unseen), **_share(unseen, seed)},
        "first_hop": mean(one.first_hop for one in read),
    }


def _share(read: Sequence[Read], seed: int) -> dict[str, Any]:
    values = [one.right for one in read]
    return {"right": mean(values), "interval": interval(values, float, seed)}


def leads(read: Mapping[str, Sequence[Read]], seed: int = 0) -> dict[str, Any]:
    """Empty where `ours` was not asked."""
    found = {}
    for name in read if "ours" in read else ():
        apart = [a.right - b.right for a, b in zip(read["ours"], read[name], strict=True)]
        if name != "ours" and apart:
            found[name] = (mean(apart), *(interval(apart, float, seed) or ()))
    return found
