"""Whether the reader says a fact's value where it is asked for, and keeps it back where something else is.

The file has one JSON object a line: `event`, `question` (that the fact answers), `near` (questions about the
same subject that it does not answer), `language`. The fact stands in the prompt of every question: no
retrieval and no gate decide, the reader alone does. In-scope answers are scored as everywhere (`verdict`); a
near answer says the value when that stands in it. Bars: `contains.right` at least 0.95, `near.says_value` at
most 0.25.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lte_runtime.align.data.facts import FactRecord, from_mapping
from lte_runtime.answer import prompt
from lte_runtime.errors import BadRequest, NotFound
from lte_runtime.progress import Progress
from lte_runtime.scoring import contains, mean
from ops.lab.baselines import base as reading
from ops.lab.baselines.base import BaselineModel
from ops.lab.evals.arms import Kit, room
from ops.lab.evals.ask import ANSWER_TOKENS
from ops.lab.evals.tally import interval
from ops.lab.evals.verdict import Verdict, contained, exact, judged

ALL = "all"
"""The set of all languages together."""


@dataclass(frozen=True, slots=True)
class NearFact:
    """A fact, the question that it answers, and those that it does not."""

    record: FactRecord
    question: str
    near: tuple[str, ...]
    language: str

    @property
    def accepted(self) -> tuple[str, ...]:
        return (self.record.target, *self.record.target_aliases)

    @property
    def questions(self) -> tuple[str, ...]:
        return (self.question, *self.near)


@dataclass(frozen=True, slots=True)
class FactAnswers:
    """The answers about one fact, in the order of its questions, and what they are worth."""

    fact: NearFact
    answer: str
    verdict: Verdict
    near_answers: tuple[str, ...]
    says_value: tuple[bool, ...]


def read(path: Path) -> list[NearFact]:
    """The facts of a file; `NotFound` when it is not there, `BadRequest` for a line that does not fit."""
    if not path.is_file():
        raise NotFound(f"there are no near questions at {path}")
    rows = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    return [_fact(line, f"{path}, line {number}") for number, line in rows if line.strip()]


def _fact(line: str, where: str) -> NearFact:
    try:
        row = json.loads(line)
        record = from_mapping(row["event"])
        return NearFact(_asserted(record), row["question"], tuple(row["near"]), row["language"])
    except KeyError as error:
        raise BadRequest(f"{where} has no {error}; tests/data/README.md shows what it needs") from None
    except (ValueError, TypeError) as error:
        raise BadRequest(f"{where} is no fact with near questions: {error}") from None


def _asserted(record: FactRecord | None) -> FactRecord:
    if record is None:
        raise ValueError("it withdraws a fact")
    return record


def run(kit: Kit, path: Path, *, limit: int | None = None, progress: Progress) -> dict[str, Any]:
    """`{"methods": {"no-adapter" | "ours": {"sets": {"all" | language: figures}}}}`, see `figures`.

    Without a configured adapter there is no `ours`. `limit` takes the first facts.
    """
    facts = read(path)[:limit]
    readers = {"no-adapter": kit.supplies.base} | ({"ours": kit.adapted} if kit.adapted else {})
    methods = {}
    for number, (name, reader) in enumerate(readers.items()):
        progress("near questions", number, len(readers))
        answers = answers_about(facts, reader)
        sets = {ALL: answers} | {
            language: [answer for answer in answers if answer.fact.language == language]
            for language in dict.fromkeys(fact.language for fact in facts)
        }
        methods[name] = {"sets": {key: figures(part) for key, part in sets.items()}}
    progress("near questions", len(readers), len(readers))
    return {"methods": methods}


def answers_about(facts: Sequence[NearFact], reader: BaselineModel) -> list[FactAnswers]:
    """Every question of every fact, with the fact before it."""
    prompts = [
        prompt.build(reader.tokenizer, text, [fact.record.statement], max_tokens=room(reader)).token_ids
        for fact in facts
        for text in fact.questions
    ]
    answers = iter(reading.answers(reader, prompts, ANSWER_TOKENS))
    return [_judged(fact, next(answers), tuple(next(answers) for _ in fact.near)) for fact in facts]


def _judged(fact: NearFact, answer: str, near_answers: tuple[str, ...]) -> FactAnswers:
    context = (fact.record.statement, fact.question)
    return FactAnswers(
        fact,
        answer,
        judged(answer, fact.accepted, context=context),
        near_answers,
        tuple(contains(text, fact.accepted) for text in near_answers),
    )


def figures(results: Sequence[FactAnswers], seed: int = 0) -> dict[str, Any]:
    """Shares with 95 % intervals; facts are resampled, since the near questions of one belong together.

    `{"n", "right", "interval", "invented_additions", "contains": {"right", "interval"},
    "near": {"n", "says_value", "interval"}, "wrong": [...], "said": [...]}`: `wrong` are in-scope answers
    without the value, `said` near answers with it.
    """
    in_scope = [result.verdict for result in results]
    says_value = [mean(result.says_value) for result in results]
    return {
        "n": len(results),
        "right": mean(map(exact, in_scope)),
        "interval": interval(in_scope, lambda verdict: float(verdict.exact), seed),
        "invented_additions": mean(verdict.adds for verdict in in_scope),
        "contains": {
            "right": mean(map(contained, in_scope)),
            "interval": interval(in_scope, lambda verdict: float(verdict.contains), seed),
        },
        "near": {
            "n": sum(len(result.says_value) for result in results),
            "says_value": mean(value for result in results for value in result.says_value),
            "interval": interval(says_value, lambda share: share, seed),
        },
        "wrong": [
            _line(result.fact, result.fact.question, result.answer)
            for result in results
            if not result.verdict.contains
        ],
        "said": [
            _line(result.fact, question, answer)
            for result in results
            for question, answer, says in zip(
                result.fact.near, result.near_answers, result.says_value, strict=True
            )
            if says
        ],
    }


def _line(fact: NearFact, question: str, answer: str) -> dict[str, str]:
    return {"fact": fact.record.statement, "question": question, "said": answer}
