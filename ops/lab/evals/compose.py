"""Questions whose first hop is an edit and whose second hop only the base can know: the method's main claim.

An invented thing gets a country, company, city ... by an edit; asked is a remembered fact about that. Facts
that the base does not answer by itself are left out, so that every miss is one of using what is known: it
must say the value in two phrasings, in a sentence or alone. All edits are made first; free decoding. Figures
are by exact match; under `contains` those for values in sentences.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lte_runtime.align.stock import names
from lte_runtime.align.stock.sources import StockFact
from lte_runtime.progress import Progress, silent
from lte_runtime.scoring import contains, mean
from ops.lab.baselines import search
from ops.lab.baselines.protocol import Editor, EditRequest
from ops.lab.baselines.search import base_answers
from ops.lab.evals import arms
from ops.lab.evals.arms import Kit
from ops.lab.evals.ask import ANSWER_TOKENS
from ops.lab.evals.tally import interval
from ops.lab.evals.verdict import Score, Verdict, contained, exact, judged
from ops.lab.recipes import chains

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
    """How a question over an edit and the question for the edit itself were answered."""

    question: Verdict
    first_hop: Verdict
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
    candidates = [(fact, probe) for fact in stock if (probe := composed(fact, rng)) is not None]
    answerable: list[Composed] = []
    for start in range(0, len(candidates), count):
        if len(answerable) < count:
            answerable += _answerable(kit, candidates[start : start + count])
    return answerable[:count]


def _answerable(kit: Kit, candidates: Sequence[tuple[StockFact, Composed]]) -> list[Composed]:
    """The probes whose fact the base says in its first and in its last phrasing."""
    first, last = (
        base_answers(kit.supplies, [fact.questions[place] for fact, _ in candidates], ANSWER_TOKENS)
        for place in (0, -1)
    )
    return [
        probe
        for (_, probe), *texts in zip(candidates, first, last, strict=True)
        if all(contains(text, probe.accepted) for text in texts)
    ]


def run(
    kit: Kit,
    methods: Sequence[str],
    *,
    count: int = 300,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """`{"methods": {name: {"sets": {"compose": figures}}}, "lead": {name: (difference, low, high)}}`.

    `lead` is the share of `ours` less that of the method, on the same questions, with 95 % bounds;
    `lead_contains` the same for values that stand in the answer.
    """
    arms.check(methods)
    probes, chosen = questions(kit, count, seed), search.tuned(kit.supplies)
    results: dict[str, list[Read]] = {}
    for number, method in enumerate(methods):
        progress(f"compose {method}", number, len(methods))
        with arms.arm(method, kit, chosen.get(method)) as editor:
            editor.edit([probe.edit for probe in probes])
            results[method] = answered(editor, probes)
            editor.undo()
    progress("compose", len(methods), len(methods))
    measured = {name: {"sets": {"compose": figures(outcomes, seed)}} for name, outcomes in results.items()}
    return {
        "seed": seed,
        "methods": measured,
        "lead": leads(results, seed),
        "lead_contains": leads(results, seed, contained),
    }


def answered(editor: Editor, probes: Sequence[Composed]) -> list[Read]:
    """Each question and its first hop asked once the edits are made."""
    texts = [text for probe in probes for text in (probe.question, probe.edit.prompt)]
    answers = dict(zip(texts, editor.answer(texts, max_new_tokens=ANSWER_TOKENS), strict=True))
    return [
        Read(
            question=judged(answers[probe.question], probe.accepted),
            first_hop=judged(answers[probe.edit.prompt], (probe.edit.target,)),
            unseen=probe.unseen,
        )
        for probe in probes
    ]


def figures(results: Sequence[Read], seed: int = 0) -> dict[str, Any]:
    """Shares of questions right, with 95 % intervals, of first hops right, and of those that are unseen."""
    return {
        "n": len(results),
        **_shares(results, seed, exact),
        "contains": _shares(results, seed, contained),
    }


def _shares(results: Sequence[Read], seed: int, score: Score) -> dict[str, Any]:
    unseen = [result for result in results if result.unseen]
    return {
        **_share(results, seed, score),
        "unseen": {"n": len(unseen), **_share(unseen, seed, score)},
        "first_hop": mean(score(result.first_hop) for result in results),
    }


def _share(results: Sequence[Read], seed: int, score: Score) -> dict[str, Any]:
    values = [float(score(result.question)) for result in results]
    return {"right": mean(values), "interval": interval(values, float, seed)}


def leads(results: Mapping[str, Sequence[Read]], seed: int = 0, score: Score = exact) -> dict[str, Any]:
    """Empty where `ours` was not asked."""
    differences = {}
    for name in results if "ours" in results else ():
        pairs = zip(results["ours"], results[name], strict=True)
        apart = [float(score(a.question)) - float(score(b.question)) for a, b in pairs]
        if name != "ours" and apart:
            differences[name] = (mean(apart), *(interval(apart, float, seed) or ()))
    return differences
