"""Change data capture: what a connector sends for a row of a database table.

A flattened row (Debezium's ExtractNewRecordState) with our field names is an event. A row marked deleted
looks like an assertion: it withdraws its fact instead, and a copy goes to the quarantine, whose message names
the remedy. An envelope around a row is refused.
"""

from __future__ import annotations

from lte_runtime.errors import BadRecord
from lte_runtime.facts.wire import JsonObject

_ROW_STANDS, _ROW_WENT = ("", "0", "false"), ("1", "true")
_KEY_PARTS = ("subject", "relation", "prompt")
_ENVELOPES = (frozenset({"schema", "payload"}), frozenset({"before"}), frozenset({"after"}))
"""Field names around a row: those of Connect's JsonConverter with schemas, and those of Debezium."""

DELETED = "cdc_deleted"
ROW_DELETED = "row_deleted"
"""Flag of the retraction that a deleted row became."""
_REMEDY = (
    "let the connector send a null value under the record key for a deleted row (ExtractNewRecordState with "
    'delete.tombstone.handling.mode=tombstone), or send the row with "op": "retract"'
)
WITHDRAWN = f"the row is marked deleted, so its fact was withdrawn: {_REMEDY}"
_UNCLEAR = f"__deleted is neither true nor false, so nobody knows whether the row stands: {_REMEDY}"
_ENVELOPE = (
    "the row stands inside {names}, as change data capture wraps it: flatten it by Debezium's "
    "ExtractNewRecordState, set value.converter.schemas.enable=false, and name its columns subject, relation "
    "and target"
)


def event_of_row(data: JsonObject) -> JsonObject:
    """The event that a table's row means: the deletion of one is a retraction.

    Raises `BadRecord` for a mark that is neither true nor false (`cdc_deleted`) and for an envelope
    (`cdc_envelope`).
    """
    if data.get("op") == "retract":
        return data  # a deletion that was translated; further fields do not matter
    if data.get("__op") == "d" or _mark(data) in _ROW_WENT:
        return {**data, "op": "retract"}
    if _mark(data) not in _ROW_STANDS:
        raise BadRecord(DELETED, _UNCLEAR)
    envelope = next((names for names in _ENVELOPES if names <= data.keys()), None)
    if envelope and not any(part in data for part in _KEY_PARTS):
        raise BadRecord("cdc_envelope", _ENVELOPE.format(names=" and ".join(sorted(envelope))))
    return data


def _mark(data: JsonObject) -> str:
    mark = data.get("__deleted")
    return "" if mark is None else str(mark).strip().lower()
