"""Thousands of small namespaces: what is done for each of them is little, and counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from event_log import Log
from work import work_of

from lte_runtime.memory import restore
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.memory.projection import Projection
from lte_runtime.store.batch_writer import KeyChange
from lte_runtime.store.records import EditMemorySettings

Opener = Callable[..., EditMemory]
MANY = 2000


def spread(memory: EditMemory, log: Log, namespaces: int) -> EditMemory:
    """One fact in each namespace, and 60 in another."""
    edits = [log.fact(f"P{n}", namespace=f"space {n}") for n in range(namespaces)]
    memory.apply(
        log.batch(*edits, *(log.fact(f"L{n}", subject=f"Firm {n}", namespace="large") for n in range(60)))
    )
    return memory


def files_of(tmp_path: Path) -> list[str]:
    (folder,) = (tmp_path / "state" / "snapshots").iterdir()
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_snapshot_of_many_namespaces_is_a_few_files(
    open_memory: Opener, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = spread(open_memory(hnsw_from=50), log, MANY)
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(number), fsync(number))[1])
    info = memory.snapshot()
    assert files_of(tmp_path) == ["hnsw.bin", "kind.json", "labels.npy", "manifest.json"]
    assert len(synced) <= 10
    memory.close()
    memory = open_memory(hnsw_from=50)
    status = memory.status()
    assert status.snapshot == info
    assert (status.index_path["large"], status.index_path["space 7"]) == ("hnsw", "exact")
    assert (status.vectors_live, memory.verify().problems) == (MANY + 60, ())
    candidates = memory.candidates("boss of Acme", None, namespace="space 7")
    assert [item.fact.target for item in candidates.items] == ["P7"]


def test_a_snapshot_of_the_version_before_is_read(
    open_memory: Opener, log: Log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It holds a folder for each namespace."""
    memory = spread(open_memory(hnsw_from=50), log, 5)
    with monkeypatch.context() as before:
        before.setattr(restore, "_is_saved", lambda _index: True)
        info = memory.snapshot()
    assert files_of(tmp_path).count("exact.npz") == 5
    memory.close()
    memory = open_memory(hnsw_from=50)
    assert memory.status().snapshot == info
    assert memory.verify().problems == ()


class Counted(list[KeyChange]):
    """Counts how often one of its items is read."""

    reads = 0

    def __iter__(self) -> Iterator[KeyChange]:
        for change in super().__iter__():
            self.reads += 1
            yield change


def test_changes_of_many_namespaces_are_gone_through_a_few_times() -> None:
    projection = Projection(64, EditMemorySettings(), {})
    changes = Counted(KeyChange(n, f"space {n}", False, False, (), ()) for n in range(MANY))
    projection.update(changes, {}, {})
    assert len(projection.indexes) == MANY
    assert changes.reads <= 3 * MANY


def test_the_check_of_recall_reads_only_for_graphs(open_memory: Opener, log: Log) -> None:
    memory = spread(open_memory(hnsw_from=50), log, 300)
    assert memory.recall_self_check() == 1.0
    assert work_of(memory, memory.recall_self_check).rows <= 64
