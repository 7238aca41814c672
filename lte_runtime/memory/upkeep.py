"""Checks of the store and its projection against each other, and their sizes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from lte_runtime.errors import Damaged
from lte_runtime.facts.policy import fold, name_of, target_form
from lte_runtime.index.exact import ExactRows
from lte_runtime.memory.projection import Projection
from lte_runtime.memory.restore import blocks
from lte_runtime.store import reader
from lte_runtime.store.db import Connection, faults
from lte_runtime.store.key_update import chained
from lte_runtime.store.records import VerifyReport
from lte_runtime.store.writer import Store
from lte_runtime.types import FactKey, Vectors

MOST_PROBLEMS = 20
_BLOCK = 1024
_LEAST_COSINE = 0.999  # of a stored vector and its copy in the index


def verify(store: Store, projection: Projection) -> VerifyReport:
    """Fold every key again and compare facts, checksums, vectors and names; changes must wait meanwhile."""
    db = store.connection
    problems = [f"sqlite: {row[0]}" for row in db.execute("PRAGMA integrity_check(10)") if row[0] != "ok"]
    keys = facts = 0
    for key_id, *parts, count, chain in db.execute(
        "SELECT id, namespace, subject, relation, facts, chain FROM keys"
    ):
        keys, facts = keys + 1, facts + count
        problems += _key_problems(store, key_id, FactKey(*parts), count, chain)
        if len(problems) >= MOST_PROBLEMS:
            break
    vectors, wrong = _vector_problems(db, projection)
    return VerifyReport(keys, facts, vectors, tuple([*problems, *wrong][:MOST_PROBLEMS]))


def _key_problems(store: Store, key_id: int, key: FactKey, count: int, chain: bytes) -> list[str]:
    """What the history says against what the tables say."""
    try:
        with faults():
            edits, rows = reader.history(store.connection, key_id, key, store.topics)
    except Damaged as error:
        return [f"key {key_id}: {error}"]
    members = fold(edits).members
    folded = b""
    for member in members:
        folded = chained(folded, member.edit)
    expected = [(rank, rows[name_of(m.edit)], target_form(m.edit)) for rank, m in enumerate(members)]
    stored = store.connection.execute(
        "SELECT rank, edit, target FROM facts WHERE key=? ORDER BY rank", (key_id,)
    )
    if len(members) != count or folded != chain or expected != stored.fetchall():
        return [f"key {key_id}: facts differ from the fold of its {len(rows)} edits"]
    return []


def _vector_problems(db: Connection, projection: Projection) -> tuple[int, list[str]]:
    problems: list[str] = []
    total = 0
    namespaces = {row[0] for row in db.execute("SELECT DISTINCT namespace FROM keys")}
    for namespace in sorted(namespaces | set(projection.indexes)):
        rows = db.execute("SELECT id FROM keys WHERE namespace=? AND facts>0 ORDER BY id", (namespace,))
        key_ids = [row[0] for row in rows]
        total += len(key_ids)
        index = projection.indexes.get(namespace)
        if sorted(index.ids() if index else []) != key_ids:
            problems.append(f"index of {namespace!r}: its keys differ from those of the store")
            continue
        problems += _vector_differences(db, projection, namespace, key_ids)
    return total, problems


def _vector_differences(
    db: Connection, projection: Projection, namespace: str, ids: list[int]
) -> Iterator[str]:
    for block in blocks(ids, _BLOCK):
        try:
            stored = reader.views_of(db, block, projection.dimension)
        except Damaged as error:
            yield f"vectors of {namespace!r}: {error}"
            continue
        indexed = projection.indexes[namespace].views(block)
        if not all(
            _same_vectors(view, indexed.get(key_id)) for key_id, view in zip(block, stored, strict=True)
        ):
            yield f"index of {namespace!r}: a vector differs from the stored one"


def _same_vectors(stored: Vectors, indexed: Vectors | None) -> bool:
    """Whether the index holds every window of a view as it is stored."""
    if indexed is None or indexed.shape != stored.shape:
        return False
    return float(np.vecdot(stored, indexed).min()) >= _LEAST_COSINE


def recall(db: Connection, projection: Projection, sample: int, k: int) -> float:
    """The worst recall@k over the namespaces, on stored vectors taken at even distances; 1.0 where all
    vectors are read for each search."""
    worst = 1.0
    for index in list(projection.indexes.values()):
        if index.path == ExactRows.path:
            continue
        ids = sorted(index.ids())
        chosen = ids[:: max(1, len(ids) // sample)][:sample]
        if chosen:
            worst = min(worst, index.recall(reader.vectors_of(db, chosen, projection.dimension), k))
    return worst


def size_of(directory: Path) -> int:
    """Bytes of all files below a directory; what vanishes meanwhile (a snapshot, say) does not count."""
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
