"""SQLite through apsw: connections, tables, versions, and what each fault means."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

import apsw
import apsw.sqlite_extra

from lte_runtime import disk
from lte_runtime.errors import BadRequest, Damaged, Fatal, NotFound, Refused, Retry
from lte_runtime.private_files import create, unwritable

log = logging.getLogger(__name__)

FOLD = "fold_version"
"""Name of the value in `meta` that says by which rules keys were folded (`names.normalise.FOLD_VERSION`)."""

_FIRST = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE topics(no INTEGER PRIMARY KEY, topic_id TEXT NOT NULL UNIQUE);
CREATE TABLE offsets(
  topic INTEGER NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL,
  crc INTEGER NOT NULL, PRIMARY KEY(topic, partition)) WITHOUT ROWID;
CREATE TABLE keys(
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, namespace TEXT NOT NULL, subject TEXT NOT NULL,
  relation TEXT NOT NULL, view TEXT, view_hash BLOB, names TEXT NOT NULL DEFAULT '[]',
  facts INTEGER NOT NULL DEFAULT 0, chain BLOB NOT NULL DEFAULT x'', heads TEXT NOT NULL DEFAULT '{}',
  crc INTEGER NOT NULL DEFAULT 0);
CREATE INDEX keys_subject ON keys(namespace, subject);
CREATE TABLE edits(
  id INTEGER PRIMARY KEY, key INTEGER, edit_id TEXT NOT NULL, op TEXT NOT NULL, namespace TEXT NOT NULL,
  source TEXT NOT NULL, retracts TEXT, revision INTEGER, valid_from INTEGER, valid_until INTEGER,
  ts INTEGER NOT NULL, topic INTEGER NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
  content_hash TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX edits_key ON edits(key, source, op, edit_id);
CREATE INDEX edits_id ON edits(edit_id);
CREATE INDEX edits_retracts ON edits(namespace, retracts) WHERE retracts IS NOT NULL;
CREATE TABLE positions(
  topic INTEGER NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL, ts INTEGER NOT NULL,
  edit INTEGER, erased TEXT, PRIMARY KEY(topic, partition, offset)) WITHOUT ROWID;
CREATE INDEX positions_edit ON positions(edit);
CREATE TABLE facts(
  key INTEGER NOT NULL, rank INTEGER NOT NULL, edit INTEGER NOT NULL, since INTEGER NOT NULL,
  valid_from INTEGER, valid_until INTEGER, many INTEGER NOT NULL, target TEXT NOT NULL,
  crc INTEGER NOT NULL, PRIMARY KEY(key, rank)) WITHOUT ROWID;
CREATE TABLE vectors(hash BLOB PRIMARY KEY, vector BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE quarantine(
  id INTEGER PRIMARY KEY, topic INTEGER NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
  ts INTEGER NOT NULL, size INTEGER NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL,
  sha256 TEXT NOT NULL, received INTEGER NOT NULL, state TEXT NOT NULL, topic_name TEXT NOT NULL,
  headers BLOB NOT NULL, key BLOB, value BLOB, UNIQUE(topic, partition, offset));
CREATE INDEX quarantine_state ON quarantine(state, id);
CREATE TABLE receipts(id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
"""

MIGRATIONS: tuple[str, ...] = (
    _FIRST,
    # 2: which adapter serves, and what adapters were trained on.
    """
CREATE TABLE activations(
  no INTEGER PRIMARY KEY, adapter TEXT NOT NULL, sha256 TEXT NOT NULL, reason TEXT NOT NULL,
  epoch INTEGER NOT NULL, at INTEGER NOT NULL, back INTEGER NOT NULL, followed INTEGER NOT NULL,
  crc INTEGER NOT NULL);
CREATE TABLE trained_edits(
  adapter TEXT NOT NULL, edit_id TEXT NOT NULL, why TEXT NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY(adapter, edit_id)) WITHOUT ROWID;
""",
    # 3: offsets that a truncated log gives out again; the facts of every key are folded again behind it.
    """
CREATE TABLE truncations(
  topic INTEGER NOT NULL, partition INTEGER NOT NULL, log INTEGER NOT NULL, resume_at INTEGER NOT NULL,
  at INTEGER NOT NULL, PRIMARY KEY(topic, partition, log)) WITHOUT ROWID;
ALTER TABLE offsets ADD COLUMN leader_epoch INTEGER NOT NULL DEFAULT -1;
ALTER TABLE edits ADD COLUMN log INTEGER NOT NULL DEFAULT 0;
CREATE TABLE lost_edits(lost_at INTEGER NOT NULL, key INTEGER, edit_id TEXT NOT NULL, op TEXT NOT NULL,
  topic INTEGER NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL, log INTEGER NOT NULL,
  body TEXT NOT NULL);
ALTER TABLE positions RENAME TO positions_2;
CREATE TABLE positions(
  topic INTEGER NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL, log INTEGER NOT NULL,
  ts INTEGER NOT NULL, edit INTEGER, erased TEXT, PRIMARY KEY(topic, partition, offset, log)) WITHOUT ROWID;
INSERT INTO positions SELECT topic, partition, offset, 0, ts, edit, erased FROM positions_2;
DROP TABLE positions_2;
CREATE INDEX positions_edit ON positions(edit);
ALTER TABLE quarantine RENAME TO quarantine_2;
CREATE TABLE quarantine(
  id INTEGER PRIMARY KEY, topic INTEGER NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
  log INTEGER NOT NULL DEFAULT 0, ts INTEGER NOT NULL, size INTEGER NOT NULL, code TEXT NOT NULL,
  message TEXT NOT NULL, sha256 TEXT NOT NULL, received INTEGER NOT NULL, state TEXT NOT NULL,
  topic_name TEXT NOT NULL, headers BLOB NOT NULL, key BLOB, value BLOB,
  UNIQUE(topic, partition, offset, log));
INSERT INTO quarantine(id, topic, partition, offset, ts, size, code, message, sha256, received, state,
  topic_name, headers, key, value) SELECT id, topic, partition, offset, ts, size, code, message, sha256,
  received, state, topic_name, headers, key, value FROM quarantine_2;
DROP TABLE quarantine_2;
CREATE INDEX quarantine_state ON quarantine(state, id);
""",
    # 4: keys are in form 2 of `names.normalise`, and what that joined is listed.
    f"""
CREATE TABLE joined_keys(
  key INTEGER NOT NULL, former TEXT NOT NULL, publishers TEXT NOT NULL, edits INTEGER NOT NULL,
  across INTEGER NOT NULL, PRIMARY KEY(key, former)) WITHOUT ROWID;
INSERT INTO meta VALUES('{FOLD}', '2');
""",
)
"""Statements that lift a store by one version each; only appended to. The whole way up is one transaction."""

SCHEMA_VERSION = len(MIGRATIONS)

# The commit that brings the log to so many pages (16 MB) copies them all into the database, for tens of
# milliseconds. At SQLite's own 1,000 that was one small commit in eighty; and pages that change with each
# commit are now copied a quarter as often.
_CHECKPOINT_PAGES = 4000

# SQLite's -shm file takes 32 KiB and a new log a page or two: with less it cannot open a store.
_LEAST_FREE_BYTES = 128 << 10

# SQLite's own check sees structure alone. Its cksumvfs keeps a checksum in each page's last eight bytes.
_CHECKSUM_BYTES = 8
_CHECKED = 0x4C544501  # application id of stores whose pages have checksums


class Connection(Protocol):
    """What is used of `apsw.Connection`; rows are tuples of whatever the columns hold."""

    @property
    def in_transaction(self) -> bool: ...

    def execute(self, sql: str, bindings: Sequence[object] = (), /) -> Any: ...

    def executemany(self, sql: str, bindings: Iterable[Sequence[object]], /) -> Any: ...

    def changes(self) -> int: ...

    def last_insert_rowid(self) -> int: ...

    def close(self) -> None: ...


@contextmanager
def faults() -> Iterator[None]:
    """Turn SQLite's faults into the project's: each class is one reaction."""
    try:
        yield
    except (apsw.FullError, apsw.BusyError, apsw.LockedError) as error:
        raise Retry(f"the store cannot be written at the moment: {error}") from error
    except (apsw.CorruptError, apsw.NotADBError, apsw.FormatError, UnicodeDecodeError) as error:
        raise Damaged(
            f"the store is damaged: {error}; restore a backup or rebuild it from the topic"
        ) from error
    except (apsw.IOError, apsw.ReadOnlyError) as error:
        if getattr(error, "extendedresult", None) == apsw.SQLITE_IOERR_DATA:
            raise Damaged(
                "the store is damaged: a page does not match its checksum; restore a backup"
            ) from error
        raise Fatal(f"the disk of the store failed, so nothing more is written: {error}") from error


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What a migration does beyond its statements. Both get a store of an earlier version.

    `check` raises `Refused` where an operator must decide first; nothing was changed then. `refold` brings
    what is derived from the edits to this version, inside the migration's transaction; its second argument is
    the schema that the store had.
    """

    check: Callable[[Connection], None]
    refold: Callable[[Connection, int], None]


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Tell a full or read-only disk from a failing one: SQLite needs its -wal and -shm files even to read."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error
    except (apsw.CantOpenError, apsw.ReadOnlyError) as error:
        number = errno.EROFS if os.statvfs(path.parent).f_flag & os.ST_RDONLY else errno.EACCES
        raise unwritable(path, OSError(number, os.strerror(number))) from error
    except (apsw.FullError, apsw.IOError) as error:
        is_full = getattr(error, "extendedresult", None) in (apsw.SQLITE_FULL, apsw.SQLITE_IOERR_SHMSIZE)
        if not is_full or shutil.disk_usage(path.parent).free >= _LEAST_FREE_BYTES:
            raise
        raise unwritable(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from error


def open_writer(path: Path, busy_timeout_ms: int, upgrade: Upgrade) -> Connection:
    """The connection that writes and checkpoints, checked and at the schema of this version.

    A store of an earlier version is lifted in one transaction, with `upgrade` at its end; a copy of it stays
    beside it as `edits.db.before-N`. Raises `Damaged` for a file that fails SQLite's own check, `Refused` for
    a newer schema, for a disk that is full or read-only, and where `upgrade` refuses.
    """
    with faults(), _opening(path):
        create(path)
        connection = _connect_writer(path, busy_timeout_ms)
        check_results = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
        if check_results != ["ok"]:
            connection.close()
            raise Damaged(f"the store {path.name} is damaged: {'; '.join(map(str, check_results))[:300]}")
        marked = connection.pragma("application_id") == _CHECKED
        if connection.reserve_bytes() != _CHECKSUM_BYTES:
            if marked:
                raise Damaged(
                    f"the store {path.name} is damaged: its header no longer says that pages have checksums"
                )
            connection = _add_checksums(connection, path, busy_timeout_ms)
        if not marked:  # last, so that a kill before it means once more, not damage
            connection.pragma("application_id", _CHECKED)
        _migrate(cast(Connection, connection), path, upgrade)
    return cast(Connection, connection)


def open_reader(path: Path, busy_timeout_ms: int) -> Connection:
    """A connection of one thread that only reads."""
    with faults(), _opening(path):
        connection = _connect(path, busy_timeout_ms, apsw.SQLITE_OPEN_READONLY)
        connection.execute("PRAGMA cache_size=-16384").fetchall()
    return cast(Connection, connection)


def copy_store(path: Path, to: Path, busy_timeout_ms: int = 5000) -> None:
    """A whole, checked copy of a store that may be in use; it appears whole or not at all.

    Raises `NotFound` without a store, `BadRequest` where `to` exists already or its directory is missing.
    """
    if not path.is_file():
        raise NotFound(f"there is no store at {path}")
    if to.exists():
        raise BadRequest(f"{to} already exists: choose another file name")
    if not to.parent.is_dir():
        raise BadRequest(f"there is no directory {to.parent}: create it first")
    scratch = to.with_name(f"{to.name}.part")
    scratch.unlink(missing_ok=True)
    connection = open_reader(path, busy_timeout_ms)
    try:
        _create_copy(scratch)
        with faults():
            connection.execute("VACUUM INTO ?", (str(scratch),))
        disk.sync(scratch)
        scratch.replace(to)
        disk.sync(to.parent)
    finally:
        connection.close()
        scratch.unlink(missing_ok=True)


def _create_copy(path: Path) -> None:
    """SQLite fills an empty file as it fills a new one, and leaves its mode alone."""
    try:
        create(path)
    except OSError as error:
        raise Refused(f"cannot write to {path.parent}: {error.strerror}") from error


@cache
def _load_checksums() -> None:
    """SQLite's cksumvfs for every connection that this process opens from now on."""
    try:
        apsw.sqlite_extra.load(apsw.Connection(":memory:"), "cksumvfs")
    except apsw.sqlite_extra.NotAvailable as error:
        raise Refused("this build of apsw lacks cksumvfs: install its wheel from the lock file") from error


def _connect(
    path: Path, busy_timeout_ms: int, flags: int = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
) -> apsw.Connection:
    _load_checksums()
    connection = apsw.Connection(str(path), flags=flags)
    connection.set_busy_timeout(busy_timeout_ms)
    return connection


def _connect_writer(path: Path, busy_timeout_ms: int) -> apsw.Connection:
    connection = _connect(path, busy_timeout_ms)
    if connection.pragma("page_count") == 0:
        connection.reserve_bytes(reserve=_CHECKSUM_BYTES)
    checkpoint = f"wal_autocheckpoint={_CHECKPOINT_PAGES}"
    for pragma in ("journal_mode=WAL", "synchronous=FULL", checkpoint, "cache_size=-65536"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def _add_checksums(connection: apsw.Connection, path: Path, busy_timeout_ms: int) -> apsw.Connection:
    """A store of an earlier version, written anew once; opened again, since checking starts with the file."""
    connection.reserve_bytes(reserve=_CHECKSUM_BYTES)
    connection.execute("VACUUM")
    connection.close()
    return _connect_writer(path, busy_timeout_ms)


def stored_schema(connection: Connection) -> int:
    """The schema of a store; 0 for a file that is none."""
    with faults():
        is_store = connection.execute(
            "SELECT count(*) FROM sqlite_schema WHERE name IN ('meta', 'edits', 'offsets')"
        ).fetchone()[0]
        return int(connection.execute("PRAGMA user_version").fetchone()[0]) if is_store == 3 else 0


def _migrate(connection: Connection, path: Path, upgrade: Upgrade) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise Refused(
            f"the store has schema {version}, this program knows {SCHEMA_VERSION}: upgrade the program, or "
            f"put back the copy {path.name}.before-N that the newer program made"
        )
    if version == SCHEMA_VERSION:
        return
    if version > 0:
        upgrade.check(connection)
        _keep_copy(path, path.with_name(f"{path.name}.before-{SCHEMA_VERSION}"))
    with transaction(connection):
        for statements in MIGRATIONS[version:]:
            connection.execute(statements)
        if version > 0:
            upgrade.refold(connection, version)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _keep_copy(path: Path, to: Path) -> None:
    """Copy the store as the earlier version left it.

    A copy that an earlier attempt made goes: the earlier version may have written to the store since.
    """
    log.info("the store is of an earlier version and is upgraded; a copy of it stays as %s", to.name)
    to.unlink(missing_ok=True)
    copy_store(path, to)


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """One immediate transaction: all or nothing, also when the commit itself fails."""
    with faults():
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@contextmanager
def read_transaction(connection: Connection) -> Iterator[Connection]:
    """What is read inside belongs to one state of the store. For a connection that only reads."""
    with faults():
        connection.execute("BEGIN")
        try:
            connection.execute("SELECT 1 FROM meta").fetchone()  # the state is the one of the first read
            yield connection
        finally:
            connection.execute("COMMIT")
