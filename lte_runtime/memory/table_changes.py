"""Change data capture: what a connector sends for a row of a database table, and that is no event.

A flattened row (Debezium's ExtractNewRecordState) with our field names is an event. The deletion of a row and
the envelope around a row look like one, or nearly, and mean something else: both are refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from lte_runtime.errors import BadRecord

_ROW_STANDS = ("", "0", "false")
_KEY_PARTS = ("subject", "relation", "prompt")
_ENVELOPES = (frozenset({"schema", "payload"}), frozenset({"before"}), frozenset({"after"}))
"""Field names around a row: those of Connect's JsonConverter with schemas, and those of Debezium."""

_DELETED = (
    "the row was deleted ({mark}), so its values are not asserted: let the connector send a null value under "
    "the record key, which withdraws the key (ExtractNewRecordState with "
    'delete.tombstone.handling.mode=tombstone), or send the row with "op": "retract"'
)
_ENVELOPE = (
    "the row stands inside {names}, as change data capture wraps it: flatten it by Debezium's "
    "ExtractNewRecordState, set value.converter.schemas.enable=false, and name its columns subject, relation "
    "and target"
)


def refuse_table_changes(data: Mapping[str, object]) -> None:
    """Raise `BadRecord` for the deletion of a row (`cdc_deleted`) and for an envelope (`cdc_envelope`)."""
    if data.get("op") == "retract":
        return  # a deletion that was translated; further fields do not matter
    if _is_deleted(data.get("__deleted")):
        raise BadRecord("cdc_deleted", _DELETED.format(mark="__deleted"))
    if data.get("__op") == "d":
        raise BadRecord("cdc_deleted", _DELETED.format(mark="__op"))
    envelope = next((names for names in _ENVELOPES if names <= data.keys()), None)
    if envelope and not any(part in data for part in _KEY_PARTS):
        raise BadRecord("cdc_envelope", _ENVELOPE.format(names=" and ".join(sorted(envelope))))


def _is_deleted(mark: object) -> bool:
    """True unless the mark says that the row stands: serving a deleted row is worse than refusing one."""
    return mark is not None and str(mark).strip().lower() not in _ROW_STANDS
