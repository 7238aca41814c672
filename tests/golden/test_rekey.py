"""A store of before, in which spellings of a name had keys of their own, becomes what this version would make."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import spellings
from make import NOW

from lte_runtime.answer.encoder.stub import StubEncoder
from lte_runtime.memory.edit_memory import EditMemory

HERE = Path(__file__).parent
BEFORE = 3


def unpacked(name: str, directory: Path) -> Path:
    with tarfile.open(HERE / f"{name}-{BEFORE}.tar.xz") as archive:
        archive.extractall(directory, filter="data")
    return directory / "state"


@contextmanager
def opened(state: Path) -> Iterator[EditMemory]:
    memory = EditMemory.open(state, StubEncoder(), now=lambda: NOW)
    try:
        yield memory
    finally:
        memory.close()


def seen(state: Path) -> dict[str, Any]:
    """All that a store says, and that its check has no complaints."""
    with opened(state) as memory:
        assert memory.verify().problems == ()
        records = memory.list_edits(limit=10_000)
        edits = {(record.edit.source_uri, record.edit.id, record.edit.subject): record for record in records}
        assert len(edits) == len(records)
        return {
            "hash": memory.state_hash(),
            "edits": {
                name: (
                    record.state,
                    record.winner_id,
                    record.edit.key,
                    record.edit.content_hash,
                    record.positions,
                )
                for name, record in edits.items()
            },
            "offsets": memory.next_offsets(),
        }


def test_a_rekeyed_store_is_what_a_new_reader_of_the_topic_has(tmp_path: Path) -> None:
    state = unpacked(spellings.SPELLINGS, tmp_path)
    spellings.fill(tmp_path / "new", spellings.SPELLINGS)
    upgraded, new = seen(state), seen(tmp_path / "new")
    assert upgraded == new
