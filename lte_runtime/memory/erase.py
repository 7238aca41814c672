"""Erasure of one fact key: its text and vectors leave every file of the state directory.

What stays has no text of the fact: the positions of its records with a salted hash, so that nothing is
applied again; its retractions, so that a late event does not bring back what they withdrew; and a receipt.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from lte_runtime import disk
from lte_runtime.errors import BadRecord, NotFound, Retry
from lte_runtime.facts.events import EventLimits, decode
from lte_runtime.facts.policy import HASHED, hashed_target, target_form
from lte_runtime.index.snapshot import remove_all
from lte_runtime.names.normalise import key_form
from lte_runtime.store import reader
from lte_runtime.store.db import Connection, faults, transaction
from lte_runtime.store.key_update import blank_key
from lte_runtime.store.quarantine import ERASED
from lte_runtime.store.records import EraseReceipt
from lte_runtime.store.rows import EDIT_COLUMNS, TEXT_ERASED, body_of, edit_from
from lte_runtime.store.writer import Store
from lte_runtime.types import FactKey, Op, Position, RawRecord

JOBS = "realign"
"""Where job directories of re-alignments lie: their training rows hold the text of facts."""
_SHORTEST = 3
"""Shorter texts are not looked for in files: they stand everywhere."""
NOT_COVERED = (
    "the Kafka log and the dead-letter topic: their owner deletes records there",
    "copies and backups of the state directory made before",
    "adapters trained on the fact: they are marked by the registry, not changed",
)
UNFINISHED = "unfinished_erasure"
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_LIMITS = EventLimits(max_bytes=1 << 30)


def erase_key(store: Store, key: FactKey, directory: Path, now_ms: int) -> tuple[EraseReceipt, int | None]:
    """Take a key out; returns the receipt and the key's number (None: only quarantined).

    Files that hold its text go first, then the store changes in one transaction: after a crash in between the
    fact is still there and can be erased again. Raises `NotFound` when neither an edit nor a quarantined
    record names the key.
    """
    receipt_id = uuid.uuid4().hex
    db = store.connection
    with faults():
        key_id = reader.key_row(db, key)
        quarantined = _quarantined(store, key)
        texts = _texts(store, key, key_id)
    if key_id is None and not quarantined:
        raise NotFound(f"no edit and no quarantined record names {key.text.replace(chr(31), '/')!r}")
    files = remove_files(directory, texts)
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
            tuple(files),
        )
        db.execute("INSERT INTO receipts VALUES(?,?)", (receipt_id, json.dumps(asdict(receipt))))
        store.meta_set(UNFINISHED, receipt_id)
    return receipt, key_id


def _texts(store: Store, key: FactKey, key_id: int | None) -> set[str]:
    """What the fact's edits say: subjects, prompts, targets, statements, aliases, as they were written."""
    texts = {key.subject}
    edits = reader.history(store.connection, key_id, key, store.topics)[0] if key_id else []
    for edit in edits:
        texts |= {edit.subject, edit.prompt, edit.target or "", edit.statement}
        texts |= {*edit.subject_aliases, *edit.target_aliases}
    return {text for text in texts if len(text) >= _SHORTEST}


def remove_files(directory: Path, texts: Collection[str]) -> list[str]:
    """Remove copies of the store by earlier versions, and files of job directories that hold such a text."""
    copies = directory.glob("edits.db.before-*")
    jobs = (path for path in (directory / JOBS).rglob("*") if path.is_file() and not path.is_symlink())
    forms = [key_form(text) for text in texts]
    removed = [*copies, *(path for path in jobs if _holds(path, forms))]
    for path in removed:
        path.unlink(missing_ok=True)
    for parent in {path.parent for path in removed}:
        disk.sync(parent)
    return sorted(str(path.relative_to(directory)) for path in removed)


def _holds(path: Path, forms: Sequence[str]) -> bool:
    """Whether one of the texts, in normal form, stands in a file, in whatever way JSON writes it."""
    text = key_form(_readable(path.read_bytes()).replace('\\"', '"').replace("\\\\", "\\"))
    return any(form in text for form in forms)


def _take_edits(store: Store, key: FactKey, key_id: int, salt: str, now_ms: int) -> tuple[int, int, int]:
    """(edits, positions, vectors) that went."""
    db = store.connection
    view = db.execute("SELECT view_hash FROM keys WHERE id=?", (key_id,)).fetchone()[0]
    rows = db.execute("SELECT id, edit_id, content_hash, op FROM edits WHERE key=?", (key_id,)).fetchall()
    asserts = [row for row in rows if row[3] == Op.ASSERT.value]
    positions = 0
    for row_id, edit_id, content_hash, _ in asserts:
        mark = hashlib.sha256(f"{salt}{content_hash}".encode()).hexdigest()
        db.execute("UPDATE positions SET edit=NULL, erased=? WHERE edit=?", (mark, row_id))
        positions += db.changes()
        db.execute("DELETE FROM edits WHERE id=?", (row_id,))
        taint = "UPDATE trained_edits SET why=?, at=? WHERE edit_id=? AND why=''"
        db.execute(taint, (ERASED, now_ms, edit_id))
    db.execute("DELETE FROM facts WHERE key=?", (key_id,))
    db.execute("DELETE FROM lost_edits WHERE key=?", (key_id,))
    db.execute("DELETE FROM joined_keys WHERE key=?", (key_id,))
    if len(rows) > len(asserts):
        _blank_retractions(store, key, key_id)
        blank_key(db, key, key_id)
    else:
        db.execute("DELETE FROM keys WHERE id=?", (key_id,))
    db.execute(
        "DELETE FROM vectors WHERE hash=?1 AND NOT EXISTS(SELECT 1 FROM keys WHERE view_hash=?1)", (view,)
    )
    return len(asserts), positions, int(db.changes())


def _blank_retractions(store: Store, key: FactKey, key_id: int) -> None:
    """Leave of the key's retractions what decides which events they reach: no text."""
    sql = f"SELECT {EDIT_COLUMNS} FROM edits e WHERE e.key=?"
    for row in store.connection.execute(sql, (key_id,)).fetchall():
        edit = edit_from(row, key, store.topics)
        flags = {*edit.flags, TEXT_ERASED} | ({HASHED} if edit.target else set())
        target = hashed_target(target_form(edit)) if edit.target and HASHED not in edit.flags else edit.target
        blank = replace(edit, subject="", relation="", prompt="", target=target, statement="")
        blank = replace(blank, subject_aliases=(), target_aliases=(), flags=tuple(sorted(flags)))
        store.connection.execute("UPDATE edits SET body=? WHERE id=?", (body_of(blank), row[0]))


def _quarantined(store: Store, key: FactKey) -> list[int]:
    """Quarantined records that name the key, or hold its parts in whatever form."""
    sql = "SELECT id, topic, partition, offset, ts, topic_name, key, value FROM quarantine WHERE state<>?"
    row_ids = []
    for row_id, topic, partition, offset, ts, name, raw_key, value in store.connection.execute(
        sql, (ERASED,)
    ):
        position = Position(store.topics[topic], partition, offset)
        if _names(RawRecord(name, position, raw_key, value, (), ts), key):
            row_ids.append(row_id)
    return row_ids


def _names(record: RawRecord, key: FactKey) -> bool:
    try:
        return decode(record, _LIMITS, 0).key == key
    except BadRecord:
        text = key_form(_readable(record.value) + " " + _readable(record.key))
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
    removed = remove_all(snapshots)
    _scrub(store.connection)
    with transaction(store.connection):
        store.connection.execute("DELETE FROM meta WHERE name=?", (UNFINISHED,))
    return removed


def _scrub(connection: Connection, patience_s: float = 10.0) -> None:
    """Write the file anew without free pages and empty the write-ahead log."""
    deadline = time.monotonic() + patience_s
    with faults():
        connection.execute("VACUUM")
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > deadline:
                raise Retry(
                    "the fact is erased, but open readers keep its text in the write-ahead log: erase again"
                )
            time.sleep(0.02)


def receipts(connection: Connection) -> list[EraseReceipt]:
    """All receipts, the newest last."""
    bodies = [json.loads(row[0]) for row in connection.execute("SELECT body FROM receipts")]
    tuples = ("not_covered", "files")
    receipts_ = [
        EraseReceipt(**body | {name: tuple(body.get(name, ())) for name in tuples}) for body in bodies
    ]
    return sorted(receipts_, key=lambda receipt: receipt.erased_ms)
