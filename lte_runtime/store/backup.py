"""A backup put into a state directory: checked as a whole before anything there is touched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lte_runtime import disk
from lte_runtime.errors import BadRequest, Damaged, NotFound, Refused
from lte_runtime.locks import DirectoryLock
from lte_runtime.store import reader
from lte_runtime.store.db import SCHEMA_VERSION, Connection, copy_store, faults, open_reader, stored_schema

_BUSY_TIMEOUT_MS = 5000


@dataclass(frozen=True)
class StoreSummary:
    """What a store holds. `next_offsets`: (topic id, partition) -> the offset that is read next."""

    edits: int
    current_facts: int
    state_hash: str
    next_offsets: dict[tuple[str, int], int]


def summarise(store: Path) -> StoreSummary:
    """What is in a store, a backup or one in use; raises `Damaged`."""
    connection = open_reader(store, _BUSY_TIMEOUT_MS)
    try:
        with faults():
            return _summary(connection)
    finally:
        connection.close()


def restore_backup(backup: Path, store: Path, *, replace: bool = False) -> StoreSummary:
    """Put a backup in the place of `store`, whose directory no daemon may hold.

    The copy is whole before an old store goes: a fault or a kill until then changes nothing. Raises
    `NotFound` without a backup, `BadRequest` for a file that is none, `Damaged`, and `Refused` where a daemon
    runs, a store is there and `replace` is not set, or a newer version made the backup.
    """
    if not backup.is_file():
        raise NotFound(f"there is no file {backup}")
    if store.exists() and store.samefile(backup):
        raise BadRequest(f"{backup} is the store itself: name a file that `lte backup` wrote")
    summary = _checked(backup)
    lock = DirectoryLock(store.parent)
    try:
        if store.exists() and not replace:
            raise Refused(
                f"{store.parent} holds a store already: name an empty --state-dir, or give --replace to "
                "remove that store (`lte backup` keeps a copy of it)"
            )
        _put(backup, store)
    finally:
        lock.release()
    return summary


def _checked(backup: Path) -> StoreSummary:
    try:
        connection = open_reader(backup, _BUSY_TIMEOUT_MS)
        try:
            _check_schema(connection, backup)
            with faults():
                problems = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
                if problems != ["ok"]:
                    raise Damaged("; ".join(problems)[:300])
                return _summary(connection)
        finally:
            connection.close()
    except Damaged as error:
        raise Damaged(f"{backup} is damaged, or is no backup; nothing was changed: {error}") from error


def _check_schema(connection: Connection, backup: Path) -> None:
    schema = stored_schema(connection)
    if schema == 0:
        raise BadRequest(f"{backup} is no backup of a store: name a file that `lte backup` wrote")
    if schema > SCHEMA_VERSION:
        raise Refused(
            f"{backup} has schema {schema}, this program knows {SCHEMA_VERSION}: upgrade the program"
        )


def _put(backup: Path, store: Path) -> None:
    scratch = store.with_name(f"{store.name}.restored")
    scratch.unlink(missing_ok=True)
    try:
        copy_store(backup, scratch)  # reads each page, so each checksum is checked once more
        # An old log that met the new store would be written into it: it goes first.
        for suffix in ("-wal", "-shm"):
            store.with_name(store.name + suffix).unlink(missing_ok=True)
        scratch.replace(store)
        disk.sync(store.parent)
    finally:
        scratch.unlink(missing_ok=True)


def _summary(connection: Connection) -> StoreSummary:
    edits, _, current_facts = reader.counts(connection)
    rows = connection.execute(
        "SELECT topic_id, partition, next FROM offsets JOIN topics ON topics.no = offsets.topic"
    )
    return StoreSummary(
        edits, current_facts, reader.state_hash(connection), {(t, int(p)): int(n) for t, p, n in rows}
    )
