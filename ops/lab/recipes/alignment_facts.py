"""The facts that the shipped adapter is trained on: KnowEdit's training half without the withheld families.

`python -m ops.lab.recipes.alignment_facts --data DIR > facts.jsonl` writes one fact a line, as
`lte align train --facts facts.jsonl` reads it. The half set aside for evaluation is left out, and so are the
families that a later alignment is to learn. The data are no part of the project; they hold `knowedit/`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from lte_runtime.align.data.facts import FactRecord, of_record
from lte_runtime.align.stock.relations import withheld
from lte_runtime.align.stock.sources import KNOWEDIT, training_records
from lte_runtime.errors import NotFound


def facts(data: Path) -> Iterator[FactRecord]:
    """The facts in the order of the files. Raises `NotFound` where a set is missing."""
    for name in KNOWEDIT:
        path = data / "knowedit" / f"{name}.json"
        if not path.is_file():
            raise NotFound(f"there is no {path}: name the folder in which knowedit/ is")
    for record in training_records(data):
        if not withheld(record["prompt"]):
            yield of_record(record, "edits")


def line(fact: FactRecord) -> str:
    """A fact as a line of the file."""
    values = asdict(fact)
    del values["source"]
    values["id"] = values.pop("edit_id")
    return json.dumps(values, ensure_ascii=False)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 2 where the data are missing."""
    parser = argparse.ArgumentParser(prog="alignment_facts", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with KnowEdit's files in knowedit/")
    args = parser.parse_args(argv)
    try:
        for fact in facts(args.data):
            print(line(fact))
    except NotFound as error:
        print(f"alignment_facts: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
