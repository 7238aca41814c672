"""Probes for a training without a daemon: the facts' own questions, other wordings, what must not change."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from lte_runtime.align.facts import FactRecord
from lte_runtime.align.judge import Probe
from lte_runtime.align.wordings import Wordings
from lte_runtime.embedded.sources import stock_facts


def make(facts: Sequence[FactRecord], seed: int, most: int = 60) -> tuple[Probe, ...]:
    """Up to `most` probes each of edit success, generality and locality; equal seeds make equal probes.

    A locality probe asks for something else under an unrelated fact; right is what the base says by itself.
    """
    rng = Random(f"{seed}:probes")
    wordings = Wordings.of(facts)
    found: list[Probe] = []
    for number, fact in enumerate(rng.sample(list(facts), min(most, len(facts)))):
        accepted = (fact.target, *fact.target_aliases)
        told = (fact.statement,)
        asked = wordings.verbatim(fact)[0]
        found.append(Probe(f"edit-{number}", "edit_success", asked, told, accepted))
        others = wordings.rephrased(fact)
        if others:
            found.append(Probe(f"other-{number}", "generality", rng.choice(others), told, accepted))
    stock = list(stock_facts())
    for number, known in enumerate(rng.sample(stock, min(most, len(stock)))):
        told = (rng.choice(facts).statement,)
        found.append(Probe(f"local-{number}", "locality", rng.choice(known.questions), told, None))
    return tuple(found)
