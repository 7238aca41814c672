"""Whether answers quote the value that they cite, with the guard (`answer.fidelity`) and without it.

Made-up facts of all kinds (`unseen_facts`) are asked through the real way of a question: memory, retrieval,
prompt, engine. The gate is held open (`scope=edited`): what is measured is quoting. Both figures come from
the same answers: `served` is the text as the service gives it, `free` what the model had said. An answer that
cites its fact is:

- quoted: every value stands in it with all its signs, between word boundaries (case does not count);
- misquoted: a value does not, and the run of words nearest to it shares half of its letters or more, in order
  (`ALIKE`; the guard steps in from `lte_runtime.answer.fidelity.NEAR`). Words of the question, names of the
  subject and other values of the set are not such a run. Parts of a value count as misquoted;
- neither: the answer is about something else, which no guard mends.

Answers that do not cite the fact quote nothing, and count as neither. Bar: 0.002 misquoted, served, of 1,000.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lte_runtime.answer.answerer import Answerer, AnswererSettings
from lte_runtime.answer.engine.protocol import Engine
from lte_runtime.answer.fidelity import nearest, quotations, quotes
from lte_runtime.answer.scope.gate import GateCalibration
from lte_runtime.progress import Progress, silent
from lte_runtime.scoring import mean
from lte_runtime.types import Answer, Encoder, ScopeMode
from ops.lab.evals import unseen_facts
from ops.lab.evals.ask import Arms, ask_all
from ops.lab.evals.tally import interval
from ops.lab.evals.unseen_facts import AskedFact
from ops.lab.scratch import memory_of

ALL = "all"
ALIKE = 0.5
QUOTED, MISQUOTED, NEITHER = "quoted", "misquoted", "neither"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer, as served and as the model said it, and how each quotes the fact."""

    fact: AskedFact
    answer: Answer
    cited: bool
    served: str
    free: str


def run(
    encoder: Encoder,
    engine: Engine,
    calibration: GateCalibration,
    *,
    methods: Sequence[str],
    count: int,
    seed: int,
    progress: Progress = silent,
) -> dict[str, Any]:
    """`{"seed", "methods": {"ours" | "no-adapter": {"sets": {"all" | kind: figures}}}}`, see `figures`."""
    facts, beside = unseen_facts.draw(count, seed)
    events = [*beside, *(event for fact in facts for event in fact.events)]
    measured: dict[str, Any] = {}
    with memory_of(events, encoder) as memory:
        for method in methods:
            settings = AnswererSettings(use_adapter=method == "ours")
            arms = Arms(Answerer(memory, encoder, calibration, engine, settings))
            questions = [fact.question for fact in facts]
            answers = ask_all(arms, questions, progress, f"fidelity {method}", scope=ScopeMode.EDITED)
            outcomes = [outcome(fact, answers[fact.question]) for fact in facts]
            measured[method] = {"sets": by_kind(outcomes, seed)}
    return {"seed": seed, "methods": measured}


def outcome(fact: AskedFact, answer: Answer) -> Outcome:
    """How an answer quotes its fact."""
    cited = {citation.fact.target for citation in answer.citations} >= set(fact.values)
    served, free = (judged(text, fact) if cited else NEITHER for text in (answer.text, answer.free_text))
    return Outcome(fact, answer, cited, served, free)


def judged(text: str, fact: AskedFact) -> str:
    """`QUOTED`, `MISQUOTED` or `NEITHER`; see the module."""
    missing = [value for value in fact.values if not quotes(value, text)]
    others = (*(value for value in fact.values if value not in missing), *fact.names)
    barred = [span for other in others for span in quotations(text, other)]
    runs = [nearest(text, value, barred, fact.question) for value in missing]
    if any(run is not None and run.likeness >= ALIKE for run in runs):
        return MISQUOTED
    return NEITHER if missing else QUOTED


def by_kind(outcomes: Sequence[Outcome], seed: int = 0) -> dict[str, Any]:
    """Figures of all answers and of those for each kind of value."""
    kinds = dict.fromkeys(outcome.fact.kind for outcome in outcomes)
    parts = {kind: [outcome for outcome in outcomes if outcome.fact.kind == kind] for kind in kinds}
    return {name: figures(part, seed) for name, part in {ALL: outcomes, **parts}.items()}


def figures(outcomes: Sequence[Outcome], seed: int = 0) -> dict[str, Any]:
    """Shares of all questions, with 95 % intervals where something hangs on them.

    `{"n", "cited", "corrected", "served": {"quoted", "misquoted", "interval", "misquotes"}, "free": the same,
    "unlike": [...]}`: `interval` is that of `misquoted`; the lists show what was said.
    """
    return {
        "n": len(outcomes),
        "cited": mean(outcome.cited for outcome in outcomes),
        "corrected": mean(bool(outcome.answer.corrected_from) for outcome in outcomes),
        "served": _side([(o, o.served, o.answer.text) for o in outcomes], seed),
        "free": _side([(o, o.free, o.answer.free_text) for o in outcomes], seed),
        "unlike": [_line(o, o.answer.text) for o in outcomes if o.cited and o.served == NEITHER],
    }


def _side(judgements: Sequence[tuple[Outcome, str, str]], seed: int) -> dict[str, Any]:
    misquoted = [float(verdict == MISQUOTED) for _, verdict, _ in judgements]
    return {
        "quoted": mean(verdict == QUOTED for _, verdict, _ in judgements),
        "misquoted": mean(misquoted),
        "interval": interval(misquoted, float, seed),
        "misquotes": [_line(o, text) for o, verdict, text in judgements if verdict == MISQUOTED],
    }


def _line(outcome: Outcome, text: str) -> Mapping[str, Any]:
    fact = outcome.fact
    return {"kind": fact.kind, "question": fact.question, "values": fact.values, "said": text}
