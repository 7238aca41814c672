"""Bytes and headers to a JSON object and its CloudEvents attributes. The only reader of hostile bytes.

Nothing here recurses over the input, and nothing but `BadRecord` is raised for any bytes.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from lte_runtime.errors import BadRecord
from lte_runtime.types import RawRecord

JsonObject = dict[str, object]

_STRUCTURED = "application/cloudevents+json"
_PLAIN = ("application/json", "text/json")
_BRACKETS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
# Deepest nesting of an event's JSON. An event in its envelope needs a handful; the JSON parser recurses, and
# some thousands of brackets would end it.
MAX_DEPTH = 32
_LITERAL_FIELDS = ("target", "target_aliases")
"""Fields whose numbers and booleans are text: products and measures come as JSON numbers."""
_ENVELOPE_TEXT = ("id", "source", "type", "time", "subject", "specversion", "datacontenttype")


@dataclass(frozen=True, slots=True)
class Payload:
    """The event's own JSON object and the CloudEvents attributes around it (empty for plain JSON)."""

    data: JsonObject
    attributes: Mapping[str, str]


def read_payload(record: RawRecord, max_bytes: int) -> Payload:
    """Parse a record's value; raises `BadRecord` with the class of what is wrong."""
    value = record.value or b""
    headers = _headers(record.headers)
    _check_envelope(value, headers, max_bytes)
    attributes = {name[3:]: text for name, text in headers.items() if name.startswith("ce_")}
    kind = _content_type(headers)
    body = parse_object(value, MAX_DEPTH)
    if kind == _STRUCTURED:
        return _structured(body)
    _check_version(attributes.get("specversion", body.get("specversion")), attributes.get("type", ""))
    _check_version(body.get("schema_version"), "")
    if not attributes and _looks_structured(body):
        return _structured(body)
    return Payload(body, attributes)


def parse_object(value: bytes, max_depth: int) -> JsonObject:
    """Strict UTF-8 JSON object without duplicate names, read by `parse_json`; the depth is checked before."""
    try:
        text = value.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise BadRecord("not_utf8", f"value is not UTF-8 at byte {error.start}") from error
    _check_depth(text, max_depth)
    try:
        parsed = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise BadRecord("not_json", f"value is not JSON: {str(error)[:120]}") from error
    if not isinstance(parsed, dict):
        raise BadRecord("wrong_type", "value is JSON, but not an object")
    return parsed


def parse_json(text: str) -> object:
    """JSON with the numbers and booleans of `target` and `target_aliases` as the text that was sent.

    Raises `ValueError` for what is no JSON, `BadRecord` for NaN, Infinity and duplicate names.
    """
    return json.loads(
        text,
        object_pairs_hook=_unique,
        parse_constant=_no_constant,
        parse_int=_Integer,
        parse_float=_Number,
    )


class _Number(str):
    """A JSON number as it was sent."""

    __slots__ = ()

    def value(self) -> int | float:
        return float(self)


class _Integer(_Number):
    """One without fraction and exponent."""

    __slots__ = ()

    def value(self) -> int:
        return int(self)


def _headers(raw: tuple[tuple[str, bytes], ...]) -> dict[str, str]:
    """Headers that matter, decoded; foreign ones may hold any bytes and are left alone."""
    lowered = ((name.lower(), value) for name, value in raw)
    return {name: _header_text(name, value) for name, value in lowered if _matters(name)}


def _matters(name: str) -> bool:
    return name.startswith("ce_") or name in ("content-type", "content_type", "content-encoding")


def _header_text(name: str, value: bytes | None) -> str:
    try:
        return (value or b"").decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise BadRecord("not_utf8", f"header {name[:40]!r} is not UTF-8") from error


def _check_envelope(value: bytes, headers: Mapping[str, str], max_bytes: int) -> None:
    if not value:
        raise BadRecord("empty", "value is empty")
    size = len(value) + sum(len(text) for text in headers.values())
    if size > max_bytes:
        raise BadRecord("too_large", f"{size} bytes, the cap is {max_bytes}")
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise BadRecord("unsupported_encoding", f"content-encoding {encoding[:40]!r} is not unpacked")


def _content_type(headers: Mapping[str, str]) -> str:
    raw = (
        headers.get("content-type") or headers.get("content_type") or headers.get("ce_datacontenttype") or ""
    )
    kind, _, parameters = raw.partition(";")
    kind = kind.strip().lower()
    charset = re.search(r"charset\s*=\s*\"?([\w-]+)", parameters, re.IGNORECASE)
    if charset and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
        raise BadRecord("unsupported_content_type", f"charset {charset[1]!r} is not UTF-8")
    if not kind or kind in _PLAIN or kind == _STRUCTURED:
        return kind
    if kind.endswith("+json") and not kind.startswith("application/cloudevents"):
        return kind
    raise BadRecord("unsupported_content_type", f"content type {kind[:60]!r}")


def _structured(body: JsonObject) -> Payload:
    attributes = {name: text for name in _ENVELOPE_TEXT if isinstance(text := body.get(name), str)}
    if "specversion" not in attributes:
        raise BadRecord("unknown_version", "a structured CloudEvent needs a specversion")
    _check_version(attributes["specversion"], attributes.get("type", ""))
    data = body.get("data")
    if data is None and "data_base64" in body:
        data = parse_object(_base64(body["data_base64"]), MAX_DEPTH)
    if not isinstance(data, dict):
        raise BadRecord("wrong_type", "the data of the CloudEvent is not a JSON object")
    _check_version(data.get("schema_version"), "")
    return Payload(data, attributes)


def _looks_structured(body: JsonObject) -> bool:
    return "specversion" in body and "data" in body and "op" not in body


def _base64(text: object) -> bytes:
    if not isinstance(text, str):
        raise BadRecord("wrong_type", "data_base64 is not a string")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRecord("wrong_type", "data_base64 is not base64") from error


def _check_version(version: object, kind: str) -> None:
    """Major version 1 of CloudEvents and of our own event type (`lte.edit.v1`) are spoken here."""
    if version is not None and str(version)[:20].strip().split(".")[0] != "1":
        raise BadRecord("unknown_version", f"major version of {str(version)[:20]!r} is unknown")
    own = re.fullmatch(r"lte\.edit(?:\.\w+)*\.v(\d+)(?:\.\d+)*", kind)
    if own and int(own[1][:9]) != 1:
        raise BadRecord("unknown_version", f"event type {kind[:60]!r} has an unknown major version")


def _check_depth(text: str, max_depth: int) -> None:
    if text.count("[") + text.count("{") <= max_depth:
        return
    depth = 0
    for match in _BRACKETS.finditer(text):
        mark = match[0]
        depth += 1 if mark in "[{" else -1 if mark in "]}" else 0
        if depth > max_depth:
            raise BadRecord("too_deep", f"nested more than {max_depth} deep")


def _unique(pairs: list[tuple[str, object]]) -> JsonObject:
    fields = {name: _text(value) if name in _LITERAL_FIELDS else _value(value) for name, value in pairs}
    if len(fields) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise BadRecord("duplicate_key", f"JSON name {counts.most_common(1)[0][0][:40]!r} occurs twice")
    return fields


def _text(value: object) -> object:
    """The literal of a number or boolean, also in a list; anything else as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _Number):
        return str(value)
    return [_text(item) for item in value] if isinstance(value, list) else value


def _value(value: object) -> object:
    """Literals as numbers, also in a list; raises `ValueError` for more digits than Python converts."""
    if isinstance(value, _Number):
        return value.value()
    return [_value(item) for item in value] if isinstance(value, list) else value


def _no_constant(name: str) -> object:
    raise BadRecord("not_json", f"{name} is not JSON")
