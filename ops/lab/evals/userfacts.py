"""Facts as users write them: edit success, paraphrases and declared aliases, counted as in `knowedit`.

The file has one JSON object a line: `event`, `question`, `paraphrase`, `alias_question`, `expected` (accepted
answers). All events are applied first. Bars: 0.95 for questions, 0.95 for aliases.

Every answer is scored twice (`verdict`): the figures by exact match, and under `contains` those for values in
sentences. `invented_additions`: of the answers in which the value stands, the share with a word that neither
the fact, the names of its subject nor the question has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lte_runtime.align.data.facts import from_mapping
from lte_runtime.answer.answerer import Answerer, AnswererSettings
from lte_runtime.answer.engine.protocol import Engine
from lte_runtime.answer.scope.gate import GateCalibration
from lte_runtime.errors import BadRequest, NotFound
from lte_runtime.progress import Progress, silent
from lte_runtime.scoring import mean
from lte_runtime.types import Answer, Encoder
from ops.lab.evals import command
from ops.lab.evals.ask import Arms, ask_all
from ops.lab.evals.verdict import Score, Verdict, contained, exact, judged
from ops.lab.scratch import memory_of

PROBES = {"question": "edit_success", "paraphrase": "generality", "alias_question": "alias"}
METHODS = ("ours", "no-adapter")


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of the file; `NotFound` when it is not there."""
    if not path.is_file():
        raise NotFound(f"no user facts at {path}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def run(
    data: Path,
    encoder: Encoder,
    engine: Engine,
    calibration: GateCalibration,
    *,
    methods: Sequence[str] = METHODS,
    limit: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """`{"methods": {name: figures}}`, see `figures`."""
    rows = read(data)[:limit]
    result: dict[str, Any] = {"methods": {}}
    with memory_of([row["event"] for row in rows], encoder) as memory:
        for method in methods:
            settings = AnswererSettings(use_adapter=method == "ours", fidelity=False)
            arms = Arms(Answerer(memory, encoder, calibration, engine, settings))
            questions = [row[probe] for row in rows for probe in PROBES if row.get(probe)]
            result["methods"][method] = figures(
                rows, ask_all(arms, questions, progress, f"user facts {method}")
            )
    return result


def figures(rows: Sequence[Mapping[str, Any]], answers: Mapping[str, Answer]) -> dict[str, Any]:
    """Shares of right answers for each kind of probe, of right facts in the prompt, and what went wrong:

    `{"n", "edit_success", "generality", "alias", "retrieval", "wrong", "contains", "invented_additions"}`.
    """
    rows_of_probe = {probe: [row for row in rows if row.get(probe)] for probe in PROBES}
    verdicts = {
        probe: [judge(row, row[probe], answers[row[probe]].text) for row in probed]
        for probe, probed in rows_of_probe.items()
    }
    return {
        "n": len(rows),
        **_shares(verdicts, exact),
        "retrieval": {
            name: mean(_cited(row, answers[row[probe]]) for row in rows_of_probe[probe])
            for probe, name in PROBES.items()
        },
        "wrong": [
            {
                "question": row[probe],
                "said": answers[row[probe]].text,
                "expected": row["expected"],
                "contains": verdict.contains,
            }
            for probe in PROBES
            for row, verdict in zip(rows_of_probe[probe], verdicts[probe], strict=True)
            if not verdict.exact
        ],
        "contains": _shares(verdicts, contained),
        "invented_additions": mean(verdict.adds for row in verdicts.values() for verdict in row),
    }


def _shares(verdicts: Mapping[str, Sequence[Verdict]], score: Score) -> dict[str, float | None]:
    return {name: mean(map(score, verdicts[probe])) for probe, name in PROBES.items()}


def judge(row: Mapping[str, Any], question: str, answer: str) -> Verdict:
    """The verdict on an answer to one of a row's questions."""
    fact = from_mapping(row["event"])
    if fact is None:
        raise BadRequest(f"the fact of {question!r} is a retraction: user facts have values")
    names = (fact.subject, *fact.subject_aliases)
    accepted = (*row["expected"], *fact.target_aliases)
    return judged(answer, accepted, context=(fact.statement, question, *names))


def _cited(row: Mapping[str, Any], answer: Answer) -> bool:
    return row["event"]["target"] in {c.fact.target for c in answer.citations}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of this evaluation."""
    args = command.parser("userfacts", __doc__, "file of user facts, JSON lines", METHODS).parse_args(argv)
    return command.measure(
        lambda parts: run(
            args.data,
            *parts,
            methods=args.method or METHODS,
            limit=args.limit,
            progress=command.show_progress,
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
