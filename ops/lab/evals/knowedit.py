"""KnowEdit by free decoding: all edits of a set applied first, facts found by the answerer's own retrieval.

`python -m ops.lab.evals.knowedit --data DIR` prints the result as JSON; the data are read from the path
given and are no part of the project.

How it counts. A record is an edit; `n` counts records. Where records of a set repeat one prompt with
several targets, the edit that the memory holds as current (the last one) is right for all of them, and
portability is only asked of that one. Edit success: the prompt itself. Generality: the rephrased prompt.
Portability: the mean over the probes of an edit and kind, then over edits. Locality: the mean over all
probes of whether the answer equals the one of the base model without any edit; a question that the gate
leaves to the base model is that model's answer by construction and is not generated twice.

Every answer is scored twice (`verdict`): the figures by exact match, after normalising, against all accepted
forms; and under `contains` those for values in sentences, where the value before the edit must not stand
beside them. `invented_additions`: of the answers to the prompt and its rephrasing in which the value stands,
the share with a word that neither the fact nor the question has.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lte_runtime.align.stock.split import held_out
from lte_runtime.answer.answerer import Answerer, AnswererSettings
from lte_runtime.answer.engine.protocol import Engine
from lte_runtime.answer.scope.gate import GateCalibration
from lte_runtime.errors import NotFound
from lte_runtime.facts.keys import statement_of
from lte_runtime.progress import Progress, silent
from lte_runtime.scoring import mean, ngram_entropy, normalise, same_answer
from lte_runtime.types import Answer, Encoder, Question, Scope, ScopeMode
from ops.lab.evals import command
from ops.lab.evals.ask import ANSWER_TOKENS, Arms, ask_all
from ops.lab.evals.verdict import Score, Verdict, contained, exact, judged
from ops.lab.scratch import memory_of

SETS = ("zsre", "wiki_recent", "wiki_counterfact", "wikibio")
METHODS = ("ours", "no-adapter")
RUNNING_TOKENS = 96
"""Of an answer on WikiBio, whose targets are running text."""
ALIASING = "Subject_Aliasing"
PORTABILITY = (ALIASING, "Reasoning", "Logical_Generalization")

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """One edit and its probes: `portability` maps a kind to (question, accepted answers) pairs.

    `before` are the values that the set names as right without the edit.
    """

    subject: str
    prompt: str
    target: str
    rephrase: str = ""
    portability: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]] = field(default_factory=dict)
    locality: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    before: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return normalise(self.prompt)

    def judged(self, question: str, answer: str, others: Iterable[str] = ()) -> Verdict:
        """On the prompt or its rephrasing; `others` are wrong besides the values before the edit."""
        context = (statement_of("", "", self.prompt, self.target), question, self.subject)
        return judged(answer, (self.target,), others=(*self.before, *others), context=context)

    def judged_probe(self, kind: str, accepted: Sequence[str], answer: str) -> Verdict:
        """On a portability probe; by an alias it is the edit's own value that is asked for."""
        return judged(answer, accepted, others=self.before if kind == ALIASING else ())


def read(path: Path) -> list[Record]:
    """The records of one file of KnowEdit. Raises `NotFound` when there is no such file."""
    if not path.is_file():
        raise NotFound(f"no KnowEdit file at {path}")
    return [_record(raw) for raw in json.loads(path.read_text(encoding="utf-8"))]


def _record(raw: Mapping[str, Any]) -> Record:
    portability = raw.get("portability") or {}
    locality = raw.get("locality") or {}
    return Record(
        subject=raw.get("subject") or raw["concept"],
        prompt=raw.get("prompt") or raw["text"],
        target=raw.get("target_new") or raw["labels"],
        rephrase=raw.get("rephrase_prompt") or "",
        portability={
            kind: tuple((p["prompt"], tuple(_texts(p["ground_truth"]))) for p in probes)
            for kind, probes in portability.items()
        },
        locality={kind: tuple(p["prompt"] for p in probes) for kind, probes in locality.items()},
        before=tuple(_texts(raw.get("ground_truth"))),
    )


def _texts(truth: Any) -> Iterator[str]:
    """All accepted forms: a text, a list, or a list of lists of aliases."""
    if isinstance(truth, str):
        yield truth
    elif isinstance(truth, (list, tuple)):
        for item in truth:
            yield from _texts(item)


def events(records: Sequence[Record]) -> list[Result]:
    """The edits as events: prompt form, with the subject as a name to be found by."""
    return [
        {"op": "assert", "id": f"record-{i}", "prompt": r.prompt, "subject": r.subject, "target": r.target}
        for i, r in enumerate(records)
    ]


def run(
    data: Path,
    encoder: Encoder,
    engine: Engine,
    calibration: GateCalibration,
    *,
    methods: Sequence[str] = METHODS,
    sets: Sequence[str] = SETS,
    split: str = "held-out",
    limit: int | None = None,
    fluency_edits: int = 32,
    progress: Progress = silent,
) -> Result:
    """`{"methods": {name: {"sets": {set: {...}}}}}` as printed by `lte eval knowedit --json`.

    `split` is held-out (the half that no training saw) or all; `limit` cuts each set. Sets whose file is
    absent are left out; `NotFound` when none is there.
    """
    set_names = [name for name in sets if (data / f"{name}.json").is_file()]
    if not set_names:
        raise NotFound(f"no KnowEdit set in {data}")
    result: Result = {"split": split, "limit": limit, "methods": {m: {"sets": {}} for m in methods}}
    for name in set_names:
        records = [r for r in read(data / f"{name}.json") if split == "all" or held_out(r.subject)][:limit]
        with memory_of(events(records), encoder) as memory:
            for method in methods:
                settings = AnswererSettings(use_adapter=method == "ours", fidelity=False)
                answerer = Answerer(memory, encoder, calibration, engine, settings)
                tokens = RUNNING_TOKENS if name == "wikibio" else ANSWER_TOKENS
                shown = _labelled(progress, f"{name} {method}")
                judge = SetJudge(Arms(answerer, max_new_tokens=tokens), records, fluency_edits, shown)
                result["methods"][method]["sets"][name] = judge.figures()
    return result


def _labelled(progress: Progress, label: str) -> Progress:
    return lambda what, done, total: progress(f"{label}: {what}", done, total)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Of the edits' own prompts, of rephrased ones, and of each edit's portability probes by kind."""

    edits: Sequence[Verdict]
    rephrased: Sequence[Verdict]
    portability: Mapping[str, Sequence[Sequence[Verdict]]]

    def shares(self, score: Score) -> Result:
        """Means over edits; portability over an edit's probes first."""
        return {
            "edit_success": mean(map(score, self.edits)),
            "generality": mean(map(score, self.rephrased)),
            "portability": {
                kind: mean(mean(map(score, probes)) for probes in by_edit)
                for kind, by_edit in self.portability.items()
            },
        }

    def additions(self) -> float | None:
        return mean(verdict.adds for verdict in (*self.edits, *self.rephrased))


class SetJudge:
    """Asks the probes of one set with one method and counts."""

    def __init__(self, arms: Arms, records: Sequence[Record], fluency_edits: int, progress: Progress) -> None:
        self._arms, self._records, self._progress = arms, records, progress
        self._fluency_edits = fluency_edits
        self._current = {r.key: r for r in records}
        self._replaced: dict[str, list[str]] = defaultdict(list)
        for record in records:
            self._replaced[record.key].append(record.target)

    def figures(self) -> Result:
        records = self._records
        edits = self._ask([r.prompt for r in records], "edits")
        rephrased = self._ask([r.rephrase for r in records if r.rephrase], "rephrased")
        probes = [q for r in self._current.values() for ps in r.portability.values() for q, _ in ps]
        moved = self._ask(probes, "portability")
        verdicts = Verdicts(
            [self._judged(r, r.prompt, edits) for r in records],
            [self._judged(r, r.rephrase, rephrased) for r in records if r.rephrase],
            {kind: self._portability(kind, moved) for kind in PORTABILITY},
        )
        locality = self._locality()
        return {
            "n": len(records),
            **verdicts.shares(exact),
            "locality": mean(v for values in locality.values() for v in values),
            "locality_by_kind": {kind: mean(values) for kind, values in locality.items()},
            "fluency": self._fluency(),
            "retrieval": self._retrieval(edits, rephrased, moved),
            "contains": verdicts.shares(contained),
            "invented_additions": verdicts.additions(),
        }

    def _ask(self, questions: Sequence[str], what: str) -> Mapping[str, Answer]:
        return ask_all(self._arms, questions, self._progress, what)

    def _judged(self, record: Record, question: str, answers: Mapping[str, Answer]) -> Verdict:
        current = self._current[record.key]
        return current.judged(question, answers[question].text, self._replaced[record.key])

    def _portability(self, kind: str, answers: Mapping[str, Answer]) -> list[list[Verdict]]:
        """For each edit that has such probes, their verdicts."""
        return [
            [r.judged_probe(kind, accepted, answers[q].text) for q, accepted in r.portability[kind]]
            for r in self._current.values()
            if r.portability.get(kind)
        ]

    def _locality(self) -> dict[str, list[bool]]:
        """For each kind: whether each probe's answer is the one of the base model."""
        probes = [(kind, q) for r in self._records for kind, qs in r.locality.items() for q in qs]
        opened = [q for q in dict.fromkeys(q for _, q in probes) if self._opens(q)]
        edited = self._ask(opened, "locality")
        base = ask_all(self._arms, opened, self._progress, "base answers", scope=ScopeMode.BASE)
        kinds: dict[str, list[bool]] = defaultdict(list)
        for kind, q in probes:
            kinds[kind].append(q not in edited or same_answer(edited[q].text, base[q].text))
        return dict(kinds)

    def _opens(self, question: str) -> bool:
        retrieval = self._arms.answerer.retrieve(Question(question))
        return retrieval.gate.scope is Scope.EDITED

    def _fluency(self) -> float | None:
        """Mean n-gram entropy of up to 100 tokens generated after the first edits' prompts."""
        long = Arms(self._arms.answerer, self._arms.threads, max_new_tokens=100)
        prompts = [r.prompt for r in self._records[: self._fluency_edits]]
        answers = ask_all(long, prompts, self._progress, "fluency")
        entropy = mean(ngram_entropy(a.token_ids) for a in answers.values())
        return None if entropy is None else round(entropy, 1)

    def _retrieval(
        self, edits: Mapping[str, Answer], rephrased: Mapping[str, Answer], moved: Mapping[str, Answer]
    ) -> Result:
        """How often the right fact was in the prompt: no reader can be right more often, except by chance."""

        def cited(record: Record, answer: Answer) -> bool:
            targets = {c.fact.target for c in answer.citations}
            return self._current[record.key].target in targets

        kind = PORTABILITY[0]
        aliased = [(r, q) for r in self._current.values() for q, _ in r.portability.get(kind, ())]
        return {
            "edit": mean(cited(r, edits[r.prompt]) for r in self._records),
            "rephrase": mean(cited(r, rephrased[r.rephrase]) for r in self._records if r.rephrase),
            "alias": mean(cited(r, moved[q]) for r, q in aliased),
        }


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of this evaluation."""
    parser = command.parser("knowedit", __doc__, "folder with KnowEdit's JSON files", METHODS)
    parser.add_argument("--set", action="append", dest="sets", choices=SETS, help="default: all")
    parser.add_argument("--split", choices=("held-out", "all"), default="held-out")
    args = parser.parse_args(argv)
    return command.measure(
        lambda parts: run(
            args.data,
            *parts,
            methods=args.method or METHODS,
            sets=args.sets or SETS,
            split=args.split,
            limit=args.limit,
            progress=command.show_progress,
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
