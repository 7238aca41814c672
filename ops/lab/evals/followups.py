"""Follow-ups: questions that leave a part of what they ask for to the turns before. Bar: 0.8 right.

The file has one JSON object a line: `kind`, `events`, `turns` (of user and assistant in turn, the last one
is the follow-up) and `expected` (accepted answers; empty where the base model is to answer). All events are
applied first.

An answer with an expected value is right by exact match, and under `contains` where a sentence has it; one
without is right where the base model gave it. `facts` is the share with the right fact cited, or none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lte_runtime.answer.answerer import Answerer
from lte_runtime.answer.engine.protocol import Engine
from lte_runtime.answer.scope.gate import GateCalibration
from lte_runtime.errors import NotFound
from lte_runtime.progress import Progress, silent
from lte_runtime.scoring import mean
from lte_runtime.types import Answer, Encoder, Question, Scope, Turn, TurnRole
from ops.lab.evals import lines
from ops.lab.evals.ask import ANSWER_TOKENS
from ops.lab.evals.verdict import judged
from ops.lab.scratch import memory_of

Row = Mapping[str, Any]


def run(
    data: Path,
    encoder: Encoder,
    engine: Engine,
    calibration: GateCalibration,
    *,
    limit: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """`{"methods": {"ours": {"sets": {kind or "all": shares}, "answers": [...]}}}`."""
    if not data.is_file():
        raise NotFound(f"no follow-ups at {data}")
    rows, answers = lines.read(data)[:limit], list[Answer]()
    with memory_of([event for row in rows for event in row["events"]], encoder) as memory:
        answerer = Answerer(memory, encoder, calibration, engine)
        for done, row in enumerate(rows, start=1):
            answers.append(answerer.answer(question_of(row["turns"])))
            progress("follow-ups", done, len(rows))
    results = [result(row, answer) for row, answer in zip(rows, answers, strict=True)]
    return {"methods": {"ours": {"sets": figures(results), "answers": results}}}


def question_of(turns: Sequence[str]) -> Question:
    """The last turn behind the others, which are the user's and the assistant's in turn."""
    roles = (TurnRole.USER, TurnRole.ASSISTANT)
    earlier = tuple(Turn(roles[place % 2], text) for place, text in enumerate(turns[:-1]))
    return Question(turns[-1], max_new_tokens=ANSWER_TOKENS, earlier=earlier)


def result(row: Row, answer: Answer) -> dict[str, Any]:
    """What became of one follow-up: the answer, and whether it is right."""
    expected = row["expected"]
    verdict = judged(answer.text, expected, context=()) if expected else None
    is_base = answer.scope is Scope.BASE
    cited = {citation.fact.target for citation in answer.citations}
    return {
        "kind": row["kind"],
        "question": row["turns"][-1],
        "read_as": answer.read_as,
        "answer": answer.text,
        "expected": expected,
        "exact": verdict.exact if verdict else is_base,
        "contains": verdict.contains if verdict else is_base,
        "facts": bool(cited & set(expected)) if expected else is_base,
        "gate": is_base is not bool(expected),
        "score": round(answer.gate.score, 3),
    }


def figures(results: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Shares of right answers, facts and gates: of all, and of each kind."""
    kinds = ["all", *dict.fromkeys(row["kind"] for row in results)]
    return {kind: _shares([row for row in results if kind in ("all", row["kind"])]) for kind in kinds}


def _shares(results: Sequence[Row]) -> dict[str, Any]:
    shares = {name: mean(row[name] for row in results) for name in ("exact", "facts", "gate")}
    return {"n": len(results), **shares, "contains": {"exact": mean(row["contains"] for row in results)}}
