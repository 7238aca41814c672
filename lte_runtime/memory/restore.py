"""Opening and saving: the store for this encoder, the projection from a snapshot or from stored vectors."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from lte_runtime import disk
from lte_runtime.errors import Damaged, Refused
from lte_runtime.index import snapshot
from lte_runtime.index.hnsw import HnswRows
from lte_runtime.index.view_index import ViewIndex
from lte_runtime.memory.projection import Projection
from lte_runtime.memory.views import encode_views
from lte_runtime.private_files import DIRECTORY_MODE
from lte_runtime.store import reader
from lte_runtime.store.batch_writer import KeyChange
from lte_runtime.store.db import faults, transaction
from lte_runtime.store.records import EditMemorySettings, SnapshotInfo
from lte_runtime.store.rekey import SNAPSHOT_TOKENS
from lte_runtime.store.writer import Store
from lte_runtime.types import Encoder

log = logging.getLogger(__name__)

T = TypeVar("T")
Progress = Callable[[int, int], None]

ENCODER = "encoder_fingerprint"
WINDOWS = "view_windows"  # set once long views have a vector for each of their windows
_BLOCK = 4096
_TOKENS_KEPT = 8


def open_store(
    path: Path, encoder: Encoder, settings: EditMemorySettings, on_progress: Progress | None
) -> Store:
    """The store, its vectors made by this encoder: all views are encoded again when it is another one."""
    store = Store(path, settings.busy_timeout_ms)
    try:
        with faults():
            made_by = store.meta_get(ENCODER)
            if made_by is None:
                with transaction(store.connection):
                    store.meta_set(ENCODER, encoder.fingerprint)
                    store.meta_set(WINDOWS, "1")
            elif made_by != encoder.fingerprint:
                _reencode_views(store, encoder, on_progress or _silent)
            elif store.meta_get(WINDOWS) is None:
                _encode_windows(store, encoder)
    except BaseException:
        store.close()
        raise
    return store


def _silent(_done: int, _total: int) -> None:
    """Nobody watches."""


def _reencode_views(store: Store, encoder: Encoder, on_progress: Progress) -> None:
    """Replace every vector and then the fingerprint, in one transaction: never half of each."""
    rows = store.connection.execute(
        "SELECT DISTINCT view_hash, view FROM keys WHERE view_hash IS NOT NULL"
    ).fetchall()
    with transaction(store.connection):
        store.connection.execute("DELETE FROM vectors")
        store.meta_set(SNAPSHOT_TOKENS, "{}")  # snapshots hold the old vectors
        done = 0
        for block in blocks(rows, 512):
            encoded = encode_views(dict(block), encoder)
            if encoded.failed:
                raise Refused(
                    f"the encoder cannot encode a text of the store: {next(iter(encoded.failed.values()))}"
                )
            store.put_vectors(encoded.vectors)
            done += len(block)
            on_progress(done, len(rows))
        store.meta_set(ENCODER, encoder.fingerprint)
        store.meta_set(WINDOWS, "1")


def _encode_windows(store: Store, encoder: Encoder) -> None:
    """Give long views of an earlier version's store a vector for each further window, once."""
    rows = store.connection.execute("SELECT DISTINCT view_hash, view FROM keys WHERE view_hash IS NOT NULL")
    long = {name: view for name, view in rows if len(encoder.windows(view)) > 1}
    with transaction(store.connection):
        store.put_vectors(encode_views(long, encoder).vectors)
        if long:
            store.meta_set(SNAPSHOT_TOKENS, "{}")  # snapshots lack them
        store.meta_set(WINDOWS, "1")


def restore(projection: Projection, store: Store, snapshots: Path) -> SnapshotInfo | None:
    """Bring an empty projection up to the store: a snapshot that is whole and the store's own, then what
    changed since; else everything from the stored vectors."""
    newest = _own_snapshot(store, projection, snapshots)
    if newest is not None:
        try:
            _load(projection, store, newest)
            return _info(newest)
        except (Damaged, ValueError) as error:
            snapshot.put_aside(newest.path)
            projection.take_over(projection.empty_copy())
            log.warning(
                "snapshot %s cannot be used, so the index is rebuilt from the store: %s",
                newest.path.name,
                error,
            )
    fill(projection, store)
    return None


def fill(projection: Projection, store: Store) -> None:
    """Bring an empty projection up to the store from the stored vectors alone."""
    present = (row for row in reader.key_names(store.connection) if row.present)
    for block in blocks(present, _BLOCK):
        _add(projection, store, block)


def _add(projection: Projection, store: Store, rows: list[reader.KeyNames], *, vectors: bool = True) -> None:
    """Names, and with `vectors` the stored vectors too."""
    changes = [KeyChange(row.key_id, row.namespace, True, not vectors, row.names, ()) for row in rows]
    ids = [row.key_id for row in rows] if vectors else []
    views = reader.views_of(store.connection, ids, projection.dimension)
    projection.update(changes, dict(zip(ids, views, strict=True)), {})


def _own_snapshot(store: Store, projection: Projection, snapshots: Path) -> snapshot.Snapshot | None:
    """The newest whole snapshot if this very store wrote it (not one that was restored from a copy)."""
    newest = snapshot.read_verified(snapshots)
    if newest is None:
        return None
    tokens = json.loads(store.meta_get(SNAPSHOT_TOKENS) or "{}")
    is_own = tokens.get(newest.about.get("token")) == newest.about.get("sequence")
    return newest if is_own and newest.about.get("dimension") == projection.dimension else None


def _load(projection: Projection, store: Store, stored: snapshot.Snapshot) -> None:
    """Graphs from verified files, names from the store, then what the files do not hold."""
    for index_dir, namespace in stored.about["namespaces"].items():
        projection.index_for(namespace).load(stored.path / index_dir)
    indexed = {name: set(index.ids()) for name, index in projection.indexes.items()}
    key_ids: dict[str, set[int]] = {}
    for block in blocks((row for row in reader.key_names(store.connection) if row.present), _BLOCK):
        for row in block:
            key_ids.setdefault(row.namespace, set()).add(row.key_id)
        old = [row for row in block if row.key_id in indexed.get(row.namespace, ())]
        new = [row for row in block if row.key_id not in indexed.get(row.namespace, ())]
        _add(projection, store, old, vectors=False)
        _add(projection, store, new)
    for namespace, ids in indexed.items():
        projection.index_for(namespace).remove(sorted(ids - key_ids.get(namespace, set())))


def save(projection: Projection, store: Store, snapshots: Path, now_ms: int, writing: Any) -> SnapshotInfo:
    """Write a snapshot of the graphs. Events wait (for the lock `writing`) while graphs are copied to files,
    not while these are made durable. Raises `Retry` when the disk is full, `Fatal` when it fails."""
    about: dict[str, Any] = {}  # read by `snapshot.write` after `copy`

    def copy(scratch: Path) -> None:
        with writing:
            about.update(_about(projection, store, now_ms))
            for name, namespace in about["namespaces"].items():
                (scratch / name).mkdir(mode=DIRECTORY_MODE)
                projection.indexes[namespace].save(scratch / name)

    with disk.faults("the snapshot cannot be written"):
        return _info(snapshot.write(snapshots, copy, about))


def _about(projection: Projection, store: Store, now_ms: int) -> dict[str, Any]:
    """What a start needs to trust and place a snapshot; its token goes into the store first."""
    token = uuid.uuid4().hex
    with transaction(store.connection):
        tokens = json.loads(store.meta_get(SNAPSHOT_TOKENS) or "{}")
        recent = dict(list(tokens.items())[1 - _TOKENS_KEPT :])
        store.meta_set(SNAPSHOT_TOKENS, json.dumps({**recent, token: store.sequence}))
    graphs = sorted(name for name, index in projection.indexes.items() if _is_saved(index))
    names = {f"index-{place:04d}": name for place, name in enumerate(graphs)}
    return {
        "token": token,
        "sequence": store.sequence,
        "dimension": projection.dimension,
        "created_ms": now_ms,
        "namespaces": names,
    }


def _is_saved(index: ViewIndex) -> bool:
    """Graphs take long to build. Other indexes are copies of stored vectors, which a start reads from the
    store about as fast as from files; a file for each would make snapshots of many namespaces slow."""
    return index.path == HnswRows.path


def _info(stored: snapshot.Snapshot) -> SnapshotInfo:
    size = sum(path.stat().st_size for path in stored.path.rglob("*") if path.is_file())
    about = stored.about
    return SnapshotInfo(stored.path.name, int(about["sequence"]), size, int(about["created_ms"]))


def blocks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` items."""
    source = iter(items)
    while block := list(islice(source, size)):
        yield block
