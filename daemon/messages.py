"""Between plain JSON-able values and the messages of gRPC; what every client of the daemon in Python uses.

Importing this module is cheap; the messages are imported with the first call.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from lte_runtime import errors
from lte_runtime.facts.wire import parse_json

if TYPE_CHECKING:
    from types import ModuleType

Json = dict[str, Any]
Position = Mapping[str, Any]
"""{"topic_id", "partition", "offset"}"""


def as_json(message: Any) -> Json:
    """A message as plain values: numbers stay numbers, enums become `edited`, times ISO 8601.

    Fields without presence are always there; an absent optional field is None.
    """
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def _field(message: Any, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [_value(field, item) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _value(field, value)


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        if field.message_type.full_name == "google.protobuf.Timestamp":
            return _iso(value.seconds * 1000 + value.nanos // 1_000_000)
        return as_json(value)
    if field.enum_type is not None:
        prefix = f"{_snake(field.enum_type.name)}_"
        return field.enum_type.values_by_number[value].name.removeprefix(prefix).lower()
    if isinstance(value, bytes):
        return _text(value)
    return value


def _text(value: bytes) -> Any:
    """Bytes as text where they are UTF-8, else {"base64": ...}."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode("ascii")}


def _snake(name: str) -> str:
    return "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(name)).upper()


def _iso(milliseconds: int) -> str:
    at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def module(name: str) -> ModuleType:
    from importlib import import_module

    return import_module(f"daemon.rpc.gen.lte.v1.{name}")


def message(service: str, name: str, **fields: Any) -> Any:
    """A request; fields that are None stay absent."""
    present = {field: value for field, value in fields.items() if value is not None}
    try:
        return getattr(module(f"{service}_service_pb2"), name)(**present)
    except (TypeError, ValueError) as error:
        raise errors.BadRequest(str(error)) from error


def question_fields(
    question: str, namespace: str, at_least: Iterable[Position], as_of: str | int | None, scope: str
) -> Any:
    return {
        "question": question,
        "namespace": namespace,
        "at_least": [dict(position) for position in at_least],
        "as_of": timestamp(as_of),
        "scope": enum_name("SCOPE_MODE", scope),
    }


def key_fields(subject: str, relation: str, namespace: str) -> Json:
    return {"namespace": namespace, "subject": subject, "relation": relation}


def enum_name(prefix: str, name: str) -> str:
    return f"{prefix}_{name.upper()}"


def timestamp(moment: str | int | None) -> Any:
    """ISO 8601 (UTC where it names no zone) or milliseconds as a Timestamp."""
    if moment is None:
        return None
    from google.protobuf.timestamp_pb2 import Timestamp

    milliseconds = moment if isinstance(moment, int) else _milliseconds(moment)
    seconds, remainder = divmod(milliseconds, 1000)
    return Timestamp(seconds=seconds, nanos=remainder * 1_000_000)


def _milliseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise errors.BadRequest(f"{text!r} is not an ISO 8601 time, such as 2026-03-01T12:00:00Z") from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def event_fields(event: Mapping[str, Any]) -> Json:
    """The topic's JSON object as the fields of the message; unknown fields are ignored, as on the topic."""
    fields = module("edit_service_pb2").Event.DESCRIPTOR.fields_by_name
    message_fields = {name: value for name, value in event.items() if name in fields and value is not None}
    for name, prefix in (("op", "OP"), ("cardinality", "CARDINALITY")):
        if name in message_fields:
            message_fields[name] = enum_name(prefix, str(message_fields[name]))
    for name in ("valid_from", "valid_until"):
        if name in message_fields:
            message_fields[name] = timestamp(message_fields[name])
    values = {name: message_fields[name] for name in ("target", "target_aliases") if name in message_fields}
    return message_fields | cast(Json, parse_json(json.dumps(values)))  # numbers become text, as on the topic
