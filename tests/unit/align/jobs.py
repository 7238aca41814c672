"""Job directories over a tiny random model, as the daemon writes them."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from lte_runtime.align.data.facts import invented
from lte_runtime.answer.engine.files import base_fingerprint
from tests.unit.answer.engine import tiny

SMALL: dict[str, Any] = {
    "cases": 24,
    "known": 4,
    "own_tokens": 4,
    "batch": 4,
    "every": 2,
    "rank": 4,
    "sure": 0.0,
    "max_tokens": 240,
    "warm_start": False,
}


def write(folder: Path, base: Path | None = None, changes: dict[str, Any] | None = None, **said: Any) -> Path:
    """A job directory; `changes` are over SMALL, `said` over job.json."""
    folder.mkdir(parents=True)
    base = base or tiny.save_model(folder.parent / "base")
    made = invented(Random(0), "edit")
    rows = [
        {
            "edit_id": fact.edit_id,
            "subject": fact.subject,
            "subject_aliases": fact.subject_aliases,
            "relation": fact.relation,
            "target": fact.target,
            "target_aliases": [],
            "prompt": "",
            "statement": fact.statement,
            "publisher": "tests",
        }
        for fact in made
    ]
    probes = [
        {"id": f"p{n}", "kind": "edit_success", "question": f"The {fact.relation} of {fact.subject} is"}
        | {"facts": [fact.statement], "answers": [fact.target]}
        for n, fact in enumerate(made[:4])
    ]
    probes.append({"id": "l", "kind": "locality", "question": "Who is it?", "facts": [], "answers": None})
    for name, lines in (("facts", rows), ("probes", probes)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    job = {
        "id": "run-1",
        "name": "align-000002",
        "preset": "embedded",
        "base": str(base),
        "base_fingerprint": base_fingerprint(base),
        "incumbent": None,
        "facts": "facts.jsonl",
        "probes": "probes.jsonl",
        "anchor": None,
        "seed": 5,
        "epoch": 7,
        "deadline_s": 600,
        "device": "cpu",
        "dtype": "float32",
        "max_memory_bytes": None,
        "neighbours": "words",
        "changes": {**SMALL, **(changes or {})},
    }
    (folder / "job.json").write_text(json.dumps(job | said))
    return folder
