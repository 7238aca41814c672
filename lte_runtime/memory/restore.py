"""Opening: the store for this encoder, and the projection from the store's own vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from lte_runtime.errors import Refused
from lte_runtime.memory import reads
from lte_runtime.memory.db import faults, transaction
from lte_runtime.memory.projection import Projection
from lte_runtime.memory.records import MemorySettings
from lte_runtime.memory.store import KeyChange, Store
from lte_runtime.memory.views import encode_views
from lte_runtime.types import Encoder

T = TypeVar("T")

ENCODER = "encoder_fingerprint"
_BLOCK = 4096


def open_store(
    path: Path, encoder: Encoder, settings: MemorySettings, on_progress: Callable[[int, int], None] | None
) -> Store:
    """The store, its vectors made by this encoder: all views are encoded again when it is another one."""
    store = Store(path, settings.busy_timeout_ms)
    try:
        with faults():
            made_by = store.meta_get(ENCODER)
            if made_by is None:
                with transaction(store.connection):
                    store.meta_set(ENCODER, encoder.fingerprint)
            elif made_by != encoder.fingerprint:
                _encode_again(store, encoder, settings.encode_batch, on_progress or _silent)
    except BaseException:
        store.close()
        raise
    return store


def _silent(_done: int, _total: int) -> None:
    """No progress wanted."""


def _encode_again(
    store: Store, encoder: Encoder, batch: int, on_progress: Callable[[int, int], None]
) -> None:
    """Replace every vector and then the fingerprint, in one transaction: never half of each."""
    rows = store.connection.execute(
        "SELECT DISTINCT view_hash, view FROM keys WHERE view_hash IS NOT NULL"
    ).fetchall()
    with transaction(store.connection):
        store.connection.execute("DELETE FROM vectors")
        done = 0
        for block in blocks(rows, 512):
            encoded = encode_views(dict(block), encoder, batch)
            if encoded.failed:
                raise Refused(f"the encoder fails on stored text: {next(iter(encoded.failed.values()))}")
            store.put_vectors(encoded.vectors)
            done += len(block)
            on_progress(done, len(rows))
        store.meta_set(ENCODER, encoder.fingerprint)


def fill(projection: Projection, store: Store) -> None:
    """Bring an empty projection up to the store."""
    changes = (
        KeyChange(key_id, namespace, True, False, reads.names_from(names), ())
        for key_id, namespace, names, present in reads.present_keys(store.connection)
        if present
    )
    for block in blocks(changes, _BLOCK):
        ids = [change.key_id for change in block]
        rows = reads.vectors_of(store.connection, ids, projection.dimension)
        projection.update(block, dict(zip(ids, rows, strict=True)), {})


def blocks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` items."""
    source = iter(items)
    while block := list(islice(source, size)):
        yield block
