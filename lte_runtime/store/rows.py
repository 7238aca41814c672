"""Edits as rows of the store and back."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lte_runtime.errors import Damaged
from lte_runtime.facts.events import WITHDRAW_ALL, content_hash
from lte_runtime.types import Cardinality, Edit, Fact, FactKey, Op, Position

Row = Sequence[Any]

EDIT_COLUMNS = (
    "e.id, e.edit_id, e.op, e.namespace, e.source, e.retracts, e.revision, e.valid_from, e.valid_until, "
    "e.ts, e.topic, e.partition, e.offset, e.content_hash, e.body, e.log"
)
EDIT_WIDTH = 16
"""How many columns these are."""
NAMESPACE_COLUMN = 3
INSERT_EDIT = (
    "INSERT INTO edits(key, edit_id, op, namespace, source, retracts, revision, valid_from, valid_until, ts, "
    "topic, partition, offset, content_hash, body, log) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
TEXT_ERASED = "text_erased"
"""Flag of a retraction that outlived the erasure of its key: nothing but its place in the order is left."""
_BODY = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_OPS = {op.value: op for op in Op}
_CARDINALITIES = {cardinality.value: cardinality for cardinality in Cardinality}


def row_crc(*values: object) -> int:
    """Checksum of a row's values, for damage that SQLite's own check does not see."""
    return zlib.crc32(repr(values).encode())


def check_row(crc: int, what: str, *values: object) -> None:
    """Raises `Damaged` when the values are not those that were written."""
    if row_crc(*values) != crc:
        raise Damaged(f"a stored {what} does not match its checksum")


def evidence_of(edit: Edit) -> tuple[object, ...]:
    """What an answer cites and the hash of the content leaves out: id, time and place."""
    position = edit.position
    return (edit.id, edit.timestamp_ms, position.topic_id, position.partition, position.offset, position.log)


def edit_values(edit: Edit, key_id: int | None, topic: int) -> tuple[object, ...]:
    """The values of `INSERT_EDIT`."""
    return (
        key_id,
        edit.id,
        edit.op.value,
        edit.namespace,
        edit.source_uri,
        edit.retracts,
        edit.revision,
        edit.valid_from,
        edit.valid_until,
        edit.timestamp_ms,
        topic,
        edit.position.partition,
        edit.position.offset,
        edit.content_hash,
        body_of(edit),
        edit.position.log,
    )


def body_of(edit: Edit) -> str:
    """The text of an edit, and what is not looked for, as JSON."""
    body = (
        edit.subject,
        edit.relation,
        edit.prompt,
        edit.target,
        edit.statement,
        edit.subject_aliases,
        edit.target_aliases,
        edit.cardinality,
        edit.publisher,
        edit.confidence,
        edit.flags,
    )
    return _BODY(body)


def edit_from(row: Row, key: FactKey | None, topics: Mapping[int, str]) -> Edit:
    """The edit in a row of `EDIT_COLUMNS`; raises `Damaged` when its content does not match its hash."""
    try:
        edit = _edit(row, key, topics)
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"edit row {row[0]} cannot be read: {error}") from error
    if TEXT_ERASED not in edit.flags and content_hash(edit, _retracts(edit)) != edit.content_hash:
        raise Damaged(f"the stored text of edit row {row[0]} does not match its hash")
    return edit


def rehashed(edit: Edit) -> Edit:
    """An edit that was changed, with the hash of what it says now; as it is where its text was erased."""
    if TEXT_ERASED in edit.flags:
        return edit
    return replace(edit, content_hash=content_hash(edit, _retracts(edit)))


def _retracts(edit: Edit) -> str | None:
    return WITHDRAW_ALL if WITHDRAW_ALL in edit.flags else edit.retracts


def _edit(row: Row, key: FactKey | None, topics: Mapping[int, str]) -> Edit:
    subject, relation, prompt, target, statement, aliases, target_aliases, many, publisher, sure, flags = (
        json.loads(row[14])
    )
    return Edit(
        id=row[1],
        op=_OPS[row[2]],
        namespace=row[NAMESPACE_COLUMN],
        key=key,
        position=Position(topics[row[10]], row[11], row[12], row[15]),
        timestamp_ms=row[9],
        content_hash=row[13],
        subject=subject,
        relation=relation,
        prompt=prompt,
        target=target,
        statement=statement,
        subject_aliases=tuple(aliases),
        target_aliases=tuple(target_aliases),
        revision=row[6],
        valid_from=row[7],
        valid_until=row[8],
        cardinality=_CARDINALITIES[many],
        source_uri=row[4],
        publisher=publisher,
        confidence=sure,
        retracts=row[5],
        flags=tuple(flags),
    )


def fact_of(edit: Edit, key_id: int) -> Fact:
    """An assertion with a key as questions see it."""
    key = edit.key
    if key is None:
        raise ValueError("an edit without a key is no fact")
    return Fact(
        edit_id=edit.id,
        key=key,
        key_id=key_id,
        subject=edit.subject or edit.prompt,
        relation=edit.relation,
        prompt=edit.prompt,
        target=edit.target or "",
        statement=edit.statement,
        subject_aliases=edit.subject_aliases,
        target_aliases=edit.target_aliases,
        position=edit.position,
        valid_from=edit.valid_from,
        valid_until=edit.valid_until,
        cardinality=edit.cardinality,
        source_uri=edit.source_uri,
        publisher=edit.publisher,
        flags=edit.flags,
    )
