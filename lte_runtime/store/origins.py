"""Replayed records go back to the place where they first stood, if that can be checked.

Place decides order, and any publisher can write the header that names one. So it counts only where the same
record stood: quarantined with the same key and value, or as an edit of the same content, in the store or
earlier in the batch. Otherwise the record keeps its own place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lte_runtime.facts.events import ORIGINAL_POSITION, derived_id
from lte_runtime.store.db import Connection
from lte_runtime.store.quarantine import ERASED, digest
from lte_runtime.types import Batch, Edit, Position, RawRecord, Rejected

_QUARANTINED = (
    "SELECT q.log, q.ts, q.sha256 FROM quarantine q JOIN topics t ON t.no=q.topic "
    "WHERE t.topic_id=? AND q.partition=? AND q.offset=? AND q.state<>?"
)
_APPLIED = (
    "SELECT p.log, p.ts, e.content_hash "
    "FROM positions p JOIN topics t ON t.no=p.topic JOIN edits e ON e.id=p.edit "
    "WHERE t.topic_id=? AND p.partition=? AND p.offset=?"
)


def claimed_position(record: RawRecord) -> Position | None:
    """The earlier place that a header names, if it is well-formed."""
    values = [value for name, value in record.headers if name == ORIGINAL_POSITION]
    parts = values[-1].decode("utf-8", "replace").rsplit("/", 3) if values else []
    if len(parts) != 4 or not all(_is_number(part) for part in parts[1:]):
        return None
    return Position(parts[0], int(parts[1]), int(parts[2]))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


@dataclass(frozen=True, slots=True)
class Origins:
    """Where records stood earlier: by the store's rows, and by the records of the batch."""

    connection: Connection
    edits: Mapping[Position, Edit]
    rejected: Mapping[Position, RawRecord]

    def of(self, record: RawRecord, content: str | None) -> RawRecord:
        """The record where it first stood, or itself. `content` is the hash of the edit that it makes."""
        place = claimed_position(record)
        if place is None or not _earlier(place, record):
            return record
        origin = self._origin(place, record, content)
        return record if origin is None else replace(record, position=origin[0], timestamp_ms=origin[1])

    def _origin(self, place: Position, record: RawRecord, content: str | None) -> tuple[Position, int] | None:
        """Position and timestamp of the same record at this place; of a truncated log, in whichever log."""
        refused, edit = self.rejected.get(place), self.edits.get(place)
        if refused is not None and digest(refused) == digest(record):
            return place, refused.timestamp_ms
        if edit is not None and edit.content_hash == content:
            return place, edit.timestamp_ms
        where = (place.topic_id, place.partition, place.offset)
        for log, timestamp_ms, sha256 in self.connection.execute(_QUARANTINED, (*where, ERASED)):
            if sha256 == digest(record):
                return replace(place, log=log), timestamp_ms
        for log, timestamp_ms, content_hash in self.connection.execute(_APPLIED, where):
            if content_hash == content:
                return replace(place, log=log), timestamp_ms
        return None


def _earlier(place: Position, record: RawRecord) -> bool:
    here = record.position
    same = (place.topic_id, place.partition) == (here.topic_id, here.partition)
    return not same or place.offset < here.offset


def restore_positions(batch: Batch, connection: Connection) -> tuple[Batch, int]:
    """The batch with proven replays at their first places, and how many claims were not proven."""
    claims = [edit.raw for edit in batch.edits if edit.raw and _has_claim(edit.raw)]
    claims += [rejection.record for rejection in batch.rejected if _has_claim(rejection.record)]
    if not claims:
        return batch, 0
    origins = Origins(
        connection,
        {edit.position: edit for edit in batch.edits},
        {rejection.record.position: rejection.record for rejection in batch.rejected},
    )
    edits = tuple(_restored(edit, origins) for edit in batch.edits)
    rejected = tuple(
        Rejected(origins.of(rejection.record, None), rejection.code, rejection.message)
        for rejection in batch.rejected
    )
    positions = {edit.raw.position for edit in edits if edit.raw} | {
        rejection.record.position for rejection in rejected
    }
    unproven = sum(record.position in positions for record in claims)
    return Batch(edits, rejected, batch.next_offsets), unproven


def _has_claim(record: RawRecord) -> bool:
    return any(name == ORIGINAL_POSITION for name, _ in record.headers)


def _restored(edit: Edit, origins: Origins) -> Edit:
    if edit.raw is None or (record := origins.of(edit.raw, edit.content_hash)) is edit.raw:
        return edit
    own = edit.id == derived_id(edit.position)
    edit_id = derived_id(record.position) if own else edit.id
    return replace(edit, id=edit_id, position=record.position, timestamp_ms=record.timestamp_ms, raw=record)
