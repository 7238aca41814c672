"""Questions over chains of edits that the project makes up: two to four hops, every hop an edit.

Counted as MQuAKE counts (Zhong et al., 2023, arXiv 2305.14795): a chain is right when any of its three
questions gives the last hop's target, by free decoding; beside it how often every single hop is right. All
edits of all chains are made first. Figures are by exact match; under `contains` those for values in
sentences.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lte_runtime.align.stock import names
from lte_runtime.align.stock.relations import NOUN_KINDS
from lte_runtime.progress import Progress, silent
from lte_runtime.scoring import mean
from ops.lab.baselines import search
from ops.lab.baselines.protocol import Editor, EditRequest
from ops.lab.evals import arms
from ops.lab.evals.arms import Kit
from ops.lab.evals.ask import ANSWER_TOKENS
from ops.lab.evals.verdict import Score, Verdict, contained, exact, judged

HOPS = (2, 3, 4)
BETWEEN = tuple(pair for pair in NOUN_KINDS if pair[1] in ("person", "org", "place", "product"))


@dataclass(frozen=True, slots=True)
class Chain:
    """Edits in the order of the hops, and three questions for the target of the last one."""

    edits: tuple[EditRequest, ...]
    questions: tuple[str, str, str]

    @property
    def target(self) -> str:
        return self.edits[-1].target


def chain(rng: random.Random, hops: int) -> Chain:
    """One chain: each target is the next subject; relations differ within it."""
    relations = [*rng.sample(BETWEEN, hops - 1), rng.choice(NOUN_KINDS)]
    while relations[-1] in relations[:-1]:
        relations[-1] = rng.choice(NOUN_KINDS)
    subject = start = names.product(rng)
    edits: list[EditRequest] = []
    for noun, kind in relations:
        target = names.value(kind, rng)
        edits.append(EditRequest(subject, f"The {noun} of {subject} is", target))
        subject = target
    return Chain(tuple(edits), questions(start, [noun for noun, _ in relations]))


def questions(start: str, nouns: Sequence[str]) -> tuple[str, str, str]:
    """Three wordings of what the last hop leads to; `nouns` in the order of the hops."""
    path = start
    for noun in nouns[:-1]:
        path = f"the {noun} of {path}"
    last = nouns[-1]
    return f"What is the {last} of {path}?", f"The {last} of {path} is", f"Tell me the {last} of {path}."


def chains(count: int, seed: int) -> list[Chain]:
    """`count` chains of each length, no subject twice; seeded."""
    sampled: list[Chain] = []
    for hops in HOPS:
        for number in range(count):
            sampled.append(chain(random.Random(f"{seed} {hops} {number}"), hops))
    return sampled


def run(
    kit: Kit,
    methods: Sequence[str],
    *,
    count: int = 100,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """`{"methods": {name: {"sets": {"2 hops": {"n", "right", "each_hop_right", ...}, ...}}}}`."""
    arms.check(methods)
    sampled, chosen = chains(count, seed), search.tuned(kit.supplies)
    result: dict[str, Any] = {"seed": seed, "methods": {}}
    for number, method in enumerate(methods):
        progress(f"multihop {method}", number, len(methods))
        with arms.arm(method, kit, chosen.get(method)) as editor:
            editor.edit([edit for chain in sampled for edit in chain.edits])
            result["methods"][method] = {"sets": figures(editor, sampled)}
            editor.undo()
    progress("multihop", len(methods), len(methods))
    return result


def figures(editor: Editor, sampled: Sequence[Chain]) -> dict[str, Any]:
    """By number of hops: chains right, single hops right, chains with every hop right."""
    prompts = [
        text for chain in sampled for text in (*chain.questions, *(edit.prompt for edit in chain.edits))
    ]
    answers = dict(zip(prompts, editor.answer(prompts, max_new_tokens=ANSWER_TOKENS), strict=True))
    by_hops: dict[str, Any] = {}
    for hops in HOPS:
        part = [chain for chain in sampled if len(chain.edits) == hops]
        last = [[judged(answers[q], (chain.target,)) for q in chain.questions] for chain in part]
        single = [[judged(answers[e.prompt], (e.target,)) for e in chain.edits] for chain in part]
        by_hops[f"{hops} hops"] = {
            "n": len(part),
            **_shares(last, single, exact),
            "contains": _shares(last, single, contained),
        }
    return by_hops


def _shares(
    last: Sequence[Sequence[Verdict]], single: Sequence[Sequence[Verdict]], score: Score
) -> dict[str, float | None]:
    """From the verdicts on each chain's questions and on each of its hops."""
    return {
        "right": mean(any(map(score, verdicts)) for verdicts in last),
        "each_hop_right": mean(score(verdict) for verdicts in single for verdict in verdicts),
        "all_hops_right": mean(all(map(score, verdicts)) for verdicts in single),
    }
