"""Probes for a training without a daemon: the facts' own questions, other wordings, what must not change."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from lte_runtime.align.data.facts import FactRecord
from lte_runtime.align.data.wordings import Wordings
from lte_runtime.align.job.judge import Probe
from lte_runtime.align.stock.sources import stock_facts


def make(facts: Sequence[FactRecord], seed: int, most: int = 60) -> tuple[Probe, ...]:
    """Up to `most` probes each of edit success, generality and locality; equal seeds make equal probes.

    A locality probe asks for something else under an unrelated fact; right is what the base says by itself.
    """
    rng = Random(f"{seed}:probes")
    wordings = Wordings.of(facts)
    probes: list[Probe] = []
    for number, fact in enumerate(rng.sample(list(facts), min(most, len(facts)))):
        accepted = (fact.target, *fact.target_aliases)
        prompt_facts = (fact.statement,)
        question = wordings.verbatim(fact)[0]
        probes.append(Probe(f"edit-{number}", "edit_success", question, prompt_facts, accepted))
        others = wordings.rephrased(fact)
        if others:
            probes.append(Probe(f"other-{number}", "generality", rng.choice(others), prompt_facts, accepted))
    stock = list(stock_facts())
    for number, stock_fact in enumerate(rng.sample(stock, min(most, len(stock)))):
        prompt_facts = (rng.choice(facts).statement,)
        probes.append(
            Probe(f"local-{number}", "locality", rng.choice(stock_fact.questions), prompt_facts, None)
        )
    return tuple(probes)
