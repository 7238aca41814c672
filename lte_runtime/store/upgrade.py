"""Keys in the form of this version: what that changes in a store, and the change, while no daemon runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lte_runtime.errors import BadRequest, NotFound, Refused
from lte_runtime.locks import DirectoryLock
from lte_runtime.store import reader, rekey
from lte_runtime.store.db import SCHEMA_VERSION, Connection, faults, open_reader, stored_schema
from lte_runtime.store.rekey import JoinedKey
from lte_runtime.store.writer import Store

_BUSY_TIMEOUT_MS = 5000


@dataclass(frozen=True, slots=True)
class RekeyReport:
    """What becomes, or became, of the keys of a store.

    `pending`: the store is of an earlier version. `changed` is how many keys get another form, 0 once
    that is done; `joined` are those that several keys become or became.
    """

    pending: bool
    keys: int
    changed: int
    joined: tuple[JoinedKey, ...]

    @property
    def across_publishers(self) -> int:
        """How many of `joined` have histories of different publishers."""
        return sum(joined.across_publishers for joined in self.joined)


def rekey_report(store: Path) -> RekeyReport:
    """What `rekey_store` would do, or has done; a daemon may run on the store. Raises `NotFound` without a
    store, `BadRequest` for another file, `Refused` for a store of a newer version."""
    if not store.is_file():
        raise NotFound(f"there is no store at {store}")
    connection = open_reader(store, _BUSY_TIMEOUT_MS)
    try:
        with faults():
            return _report(connection, store)
    finally:
        connection.close()


def _report(connection: Connection, store: Path) -> RekeyReport:
    schema = stored_schema(connection)
    if schema == 0:
        raise BadRequest(f"{store} is no store: name the state directory of a daemon")
    if schema > SCHEMA_VERSION:
        raise Refused(
            f"{store} has schema {schema}, this program knows {SCHEMA_VERSION}: upgrade the program"
        )
    keys = reader.counts(connection)[1]
    if schema == SCHEMA_VERSION:
        return RekeyReport(False, keys, 0, tuple(rekey.stored_joins(connection)))
    renamed = sum(1 for _ in rekey.renamed_keys(connection))
    joined = rekey.joined_keys(connection, rekey.changed_keys(connection))
    return RekeyReport(True, keys, renamed, tuple(joined))


def rekey_store(store: Path, *, join_publishers: bool = False) -> RekeyReport:
    """Lift a store of an earlier version to this one, as the start of a daemon does; a store of this version
    stays as it is. What was done is told by the report.

    Raises `Refused` where a daemon holds the directory, and where keys of different publishers would become
    one and `join_publishers` is not set; otherwise as `rekey_report`.
    """
    rekey_report(store)
    lock = DirectoryLock(store.parent)
    try:
        expected = rekey_report(store)
        Store(store, _BUSY_TIMEOUT_MS, join_publishers=join_publishers).close()
    finally:
        lock.release()
    return expected
