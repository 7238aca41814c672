"""Writes states in which one name stands under several keys, because of its spelling.

`python tests/golden/spellings.py DIRECTORY` writes `spellings-N.tar.xz` (one publisher for each name) and
`publishers-N.tar.xz` (two publishers that spell a name differently), N being the version of the schema. Those
of schema 3 were made by the version that kept such names apart.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from make import NOW, Log, batches, fact

from lte_runtime.answer.encoder.stub import StubEncoder
from lte_runtime.facts.events import fact_key
from lte_runtime.memory.edit_memory import EditMemory, EditMemorySettings
from lte_runtime.store.db import SCHEMA_VERSION
from lte_runtime.types import RawRecord

SPELLINGS, PUBLISHERS = "spellings", "publishers"
ERASED = ("O’Shea Mills", "owner")


def records(name: str) -> list[RawRecord]:
    """Events with the spellings of names that publishers really send, and plain ones between them."""
    log = Log()
    _names(log)
    _sets_and_retractions(log)
    _namespaces(log)
    if name == PUBLISHERS:
        _two_publishers(log)
    for number in range(20):
        log.add(fact(f"Crane {number}", "operator", f"crew {number}"), number % 3)
    return log.records


def _names(log: Log) -> None:
    for number, spelling in enumerate(("O'Hanlon Creamery", "O’Hanlon Creamery", "OʼHANLON CREAMERY")):
        log.add(fact(spelling, "delivery fee", f"€{number}.50", subject_aliases=["O’Hanlon’s"]), number)
    log.add(fact("Saint-Aubin Clinic", "visiting hours", "14:00 to 17:00", revision=2), 0)
    log.add(fact("Saint‑Aubin Clinic", "visiting hours", "15:00 to 18:30", revision=1), 1)
    log.add(fact("Işıklı Mobilya", "head office", "Bursa"), 0)
    log.add(fact("IŞIKLI MOBİLYA", "head office", "Eskişehir"), 2)
    log.add({"prompt": "Who tends the skerry’s light?", "target": "Ines Moe"}, 1)
    log.add({"prompt": "Who tends the skerry's light?", "target": "Nils Moe"}, 1)
    log.add({"prompt": "Welche Farbe hat Boje Sieben?", "target": "gruen"}, 1)
    log.add(fact("Großmann Gießerei", "start of the early shift", "05:30"), 0)
    log.add(fact("GROSSMANN GIESSEREI", "start of the early shift", "06:00"), 0)


def _sets_and_retractions(log: Log) -> None:
    for member in ("O'Neill", "O’Neill", "Quist"):
        log.add(fact("Night crew", "member", member, cardinality="many"), 1)
    log.add({"op": "retract", "subject": "Night crew", "relation": "member", "target": "OʼNEILL"}, 1)
    log.add(fact("Tug – 4", "captain", "Una Berg", id="tug-4-a"), 2)
    log.add(fact("Tug - 4", "captain", "Vic Holm", id="tug-4-b"), 2)
    log.add({"op": "retract", "subject": "Tug — 4", "relation": "captain", "id": "tug-4-r"}, 2)
    log.add(None, 2, key=fact_key("default", "Buoy’s end", "colour").text.encode())
    log.add(fact("Buoy's end", "colour", "green"), 2)
    log.add(fact(ERASED[0], ERASED[1], "Mara Lund"), 0)
    log.add({"op": "retract", "subject": ERASED[0], "relation": ERASED[1]}, 0)


def _namespaces(log: Log) -> None:
    for namespace in ("Lloyd's", "Lloyd’s"):
        log.add(fact("Hall 1", "keeper", "Ada Lund", namespace=namespace, id="hall-1"), 0)
        log.add(fact("Hall 2", "keeper", f"of {namespace}", namespace=namespace, id=f"hall-2-{namespace}"), 0)
    log.add({"op": "retract", "id": "hall-2-Lloyd’s", "namespace": "Lloyd’s"}, 0)


def _two_publishers(log: Log) -> None:
    for publisher, spelling in (("shop", "Dun–Laoghaire depot"), ("cms", "Dun-Laoghaire depot")):
        event = fact(spelling, "opening time", f"as {publisher} says", id=f"{publisher}-1")
        log.add(event | {"source": {"publisher": publisher}}, 0)


def fill(directory: Path, name: str, *, erase: bool = True) -> None:
    """A state directory with these records, and a snapshot of the indexes."""
    memory = EditMemory.open(directory, StubEncoder(), EditMemorySettings(), now=lambda: NOW)
    try:
        for batch in batches(records(name), 5):
            memory.apply(batch)
        if erase:
            memory.erase(fact_key("default", *ERASED))
        memory.snapshot()
    finally:
        memory.close()


def main(arguments: Sequence[str]) -> None:
    for name in (SPELLINGS, PUBLISHERS):
        with tempfile.TemporaryDirectory() as scratch:
            fill(Path(scratch) / "state", name)
            path = Path(arguments[0]) / f"{name}-{SCHEMA_VERSION}.tar.xz"
            with tarfile.open(path, "w:xz") as archive:
                archive.add(Path(scratch) / "state", "state")


if __name__ == "__main__":
    main(sys.argv[1:])
