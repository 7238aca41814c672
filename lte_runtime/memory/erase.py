"""Erasure of one fact key: its text and vectors leave the store, its log and the quarantine.

What stays: the positions of its records with a salted hash, so that nothing is applied again, and a receipt.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lte_runtime.errors import BadRecord, NotFound, Retry
from lte_runtime.memory import reads
from lte_runtime.memory.db import Connection, faults, transaction
from lte_runtime.memory.events import EventLimits, decode
from lte_runtime.memory.keys import normalise_key
from lte_runtime.memory.quarantine import ERASED
from lte_runtime.memory.records import EraseReceipt
from lte_runtime.memory.snapshot import remove_all
from lte_runtime.memory.store import Store
from lte_runtime.types import FactKey, Position, RawRecord

NOT_COVERED = (
    "the Kafka log and the dead-letter topic: their owner deletes records there",
    "copies and backups of the state directory made before",
    "adapters trained on the fact: they are marked by the registry, not changed",
)
UNFINISHED = "unfinished_erasure"
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_LIMITS = EventLimits(max_bytes=1 << 30)


def erase_key(store: Store, key: FactKey, now_ms: int) -> tuple[EraseReceipt, int | None]:
    """Take a key out, in one transaction; returns the receipt and the key's number (None: only quarantined).

    Raises `NotFound` when neither an edit nor a quarantined record names the key.
    """
    receipt_id = uuid.uuid4().hex
    db = store.connection
    with faults():
        key_id = reads.key_row(db, key)
        quarantined = _quarantined(store, key)
    if key_id is None and not quarantined:
        raise NotFound(f"nothing is known of {key.text.replace(chr(31), '/')!r}")
    with transaction(db):
        edits, positions, vectors = (
            _take_edits(store, key, key_id, receipt_id, now_ms) if key_id else (0, 0, 0)
        )
        _blank(db, quarantined)
        receipt = EraseReceipt(
            receipt_id,
            hashlib.sha256(key.text.encode()).hexdigest(),
            edits,
            positions,
            len(quarantined),
            vectors,
            now_ms,
            NOT_COVERED,
        )
        db.execute("INSERT INTO receipts VALUES(?,?)", (receipt_id, json.dumps(asdict(receipt))))
        store.meta_set(UNFINISHED, receipt_id)
    return receipt, key_id


def _take_edits(store: Store, key: FactKey, key_id: int, salt: str, now_ms: int) -> tuple[int, int, int]:
    """(edits, positions, vectors) that went."""
    db = store.connection
    rows = reads.history_rows(db, key_id, key.namespace)
    positions = 0
    for row in rows:
        mark = hashlib.sha256(f"{salt}{row[13]}".encode()).hexdigest()
        db.execute("UPDATE positions SET edit=NULL, erased=? WHERE edit=?", (mark, row[0]))
        positions += db.changes()
        db.execute("DELETE FROM edits WHERE id=?", (row[0],))
        taint = "UPDATE trained_edits SET why=?, at=? WHERE edit_id=? AND why=''"
        db.execute(taint, (ERASED, now_ms, row[1]))
    view = db.execute("SELECT view_hash FROM keys WHERE id=?", (key_id,)).fetchone()[0]
    db.execute("DELETE FROM facts WHERE key=?", (key_id,))
    db.execute("DELETE FROM keys WHERE id=?", (key_id,))
    db.execute(
        "DELETE FROM vectors WHERE hash=?1 AND NOT EXISTS(SELECT 1 FROM keys WHERE view_hash=?1)", (view,)
    )
    return len(rows), positions, int(db.changes())


def _quarantined(store: Store, key: FactKey) -> list[int]:
    """Quarantined records that name the key, or hold its parts in whatever form."""
    sql = "SELECT id, topic, partition, offset, ts, topic_name, key, value FROM quarantine WHERE state<>?"
    found = []
    for row_id, topic, partition, offset, ts, name, raw_key, value in store.connection.execute(
        sql, (ERASED,)
    ):
        position = Position(store.topics[topic], partition, offset)
        if _names(RawRecord(name, position, raw_key, value, (), ts), key):
            found.append(row_id)
    return found


def _names(record: RawRecord, key: FactKey) -> bool:
    try:
        return decode(record, _LIMITS, 0).key == key
    except BadRecord:
        text = normalise_key(_readable(record.value) + " " + _readable(record.key))
        return key.subject in text and key.relation in text


def _readable(raw: bytes | None) -> str:
    text = (raw or b"").decode("utf-8", "ignore")
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text).encode("utf-8", "ignore").decode()


def _blank(db: Connection, ids: Sequence[int]) -> None:
    db.executemany(
        "UPDATE quarantine SET key=NULL, value=NULL, headers=x'5b5d', size=2, message='erased', state=? "
        "WHERE id=?",
        [(ERASED, row_id) for row_id in ids],
    )


def finish_erasure(store: Store, snapshots: Path) -> int:
    """Take the erased text out of snapshots, free pages and the write-ahead log, also after a crash in
    between; returns how many snapshots went. Raises `Retry` when readers hold the log."""
    if store.meta_get(UNFINISHED) is None:
        return 0
    had = remove_all(snapshots)
    _scrub(store.connection)
    with transaction(store.connection):
        store.connection.execute("DELETE FROM meta WHERE name=?", (UNFINISHED,))
    return had


def _scrub(connection: Connection, patience_s: float = 10.0) -> None:
    """Write the file anew without free pages and empty the write-ahead log."""
    deadline = time.monotonic() + patience_s
    with faults():
        connection.execute("VACUUM")
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > deadline:
                raise Retry("the fact is out of the store, but readers hold its write-ahead log: erase again")
            time.sleep(0.02)


def receipts(connection: Connection) -> list[EraseReceipt]:
    """All receipts, the newest last."""
    bodies = [json.loads(row[0]) for row in connection.execute("SELECT body FROM receipts")]
    made = [EraseReceipt(**{**body, "not_covered": tuple(body["not_covered"])}) for body in bodies]
    return sorted(made, key=lambda receipt: receipt.erased_ms)
