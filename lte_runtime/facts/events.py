"""Kafka records to edits and back: `docs/events.md` in code.

`decode` is total: any bytes give an `Edit` or a `BadRecord`. `python -m lte_runtime.facts.events` prints the
JSON Schema of an event.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lte_runtime.errors import BadRecord
from lte_runtime.facts.keys import (
    clean_text,
    fact_key,
    forbidden_character,
    has_hidden,
    mixed_script,
    statement_of,
    view_of,
)
from lte_runtime.facts.name_owners import NameOwners
from lte_runtime.facts.subject_names import subject_names
from lte_runtime.facts.table_changes import DELETED, ROW_DELETED, WITHDRAWN, event_of_row
from lte_runtime.facts.weak_names import is_weak
from lte_runtime.facts.wire import Payload, parse_object, read_payload
from lte_runtime.names.normalise import key_form
from lte_runtime.types import Cardinality, Edit, FactKey, Op, Position, RawRecord

if TYPE_CHECKING:  # pydantic costs 0.2 s at import: publishing does not need it
    from lte_runtime.facts.schema import Event

__all__ = [
    "FOREIGN_NAME",
    "LONG_KEY",
    "LONG_STATEMENT",
    "NAME_FLAGS",
    "ORIGINAL_POSITION",
    "WEAK_NAME",
    "WITHDRAW_ALL",
    "EventLimits",
    "decode",
    "fact_key",
    "json_schema",
    "notice",
    "original_position_header",
    "record_key",
    "statement_of",
    "to_json",
    "view_of",
]

ORIGINAL_POSITION = "lte-original-position"
"""Header of a replayed record: `topic id/partition/offset/timestamp`. `origins` decides whether it counts."""
WITHDRAW_ALL = "withdraw_all"
"""Flag of the edit made from a null value: everything of the key goes, not only the current fact."""
LONG_KEY = "long_key"
"""Flag of an edit whose prompt, or subject and relation, is longer than the encoder reads: windows of it are
searched."""
LONG_STATEMENT = "long_statement"
"""Flag of an edit with a statement that is longer than the encoder reads; no statement is searched."""
WEAK_NAME = "weak_name"
"""Flag of an edit with a name that says too little: a function word, or shorter than two letters."""
FOREIGN_NAME = "foreign_name"
"""Flag of an edit with a name that facts of another publisher had when it came."""
NAME_FLAGS = (FOREIGN_NAME, WEAK_NAME, "mixed_script", "hidden_characters")
"""Flags of edits whose names or texts an operator may want to look at."""
FUTURE_MS = 5 * 60_000
_CLEAR_KEYS = (
    "join namespace, subject and relation by U+001F, or send a JSON object "
    'with "namespace", "subject" and "relation" (or "namespace" and "prompt") as the key'
)


@dataclass(frozen=True, slots=True)
class EventLimits:
    """What a record may be. `writers` maps a publisher ("*" for the others) to the namespaces that it may
    write ("*" for all); empty means that everybody may write everywhere. `owners` says for whom names are
    reserved."""

    max_bytes: int = 256 * 1024
    writers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    owners: NameOwners = field(default_factory=lambda: NameOwners.of({}))


def decode(record: RawRecord, limits: EventLimits, now_ms: int | None = None) -> Edit:
    """One record to one edit; raises nothing but `BadRecord`. `now_ms` serves the future flag alone."""
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    edit = _withdraw_all(record) if record.value is None else _decode_value(record, limits)
    _check_writer(edit, limits.writers)
    _check_names(edit, limits.owners)
    if record.timestamp_ms > now_ms + FUTURE_MS:
        edit = replace(edit, flags=(*edit.flags, "future_timestamp"))
    return edit


def _decode_value(record: RawRecord, limits: EventLimits) -> Edit:
    from lte_runtime.facts.schema import parse_event

    payload = read_payload(record, limits.max_bytes)
    data = event_of_row(payload.data)
    event = parse_event(data)
    for text in _texts(event, payload.attributes):
        code = forbidden_character(text)
        if code:
            raise BadRecord(code, "the event carries a character that no fact may hold")
    edit = _edit_of(event, payload, record)
    return edit if data is payload.data else _deletion_of_row(edit)


def _deletion_of_row(edit: Edit) -> Edit:
    """A deleted row takes its member of a set, or all of its key: an earlier value is not restored."""
    edit = replace(edit, flags=(*edit.flags, ROW_DELETED))
    if edit.key is None or edit.cardinality is Cardinality.MANY:
        return edit
    edit = replace(edit, target=None, statement="", retracts=None, flags=(*edit.flags, WITHDRAW_ALL))
    return replace(edit, content_hash=content_hash(edit, WITHDRAW_ALL))


def notice(edit: Edit) -> tuple[str, str] | None:
    """Code and message of what the publisher of an edit that was taken should mend; None for nothing."""
    return (DELETED, WITHDRAWN) if ROW_DELETED in edit.flags else None


def _texts(event: Event, attributes: Mapping[str, str]) -> Iterator[str]:
    source = event.source
    plain = (event.id, event.namespace, event.subject, event.relation, event.target, event.prompt)
    more = (event.statement, event.retracts, source.uri, source.publisher)
    yield from (text for text in (*plain, *more) if text)
    yield from event.subject_aliases
    yield from event.target_aliases
    yield from (attributes.get("id", ""), attributes.get("source", ""))


def _edit_of(event: Event, payload: Payload, record: RawRecord) -> Edit:
    retract = event.op == "retract"
    key = _key_of(event, retract)
    if not retract and not clean_text(event.target or ""):
        raise BadRecord("missing_target", "an assertion needs a target")
    if (
        event.valid_from is not None
        and event.valid_until is not None
        and event.valid_until <= event.valid_from
    ):
        raise BadRecord("bad_interval", "valid_until is not after valid_from")
    edit = _bare_edit(event, key, payload, record)
    if edit.op is Op.ASSERT and any(map(is_weak, subject_names(edit))):
        edit = replace(edit, flags=(*edit.flags, WEAK_NAME))
    edit_id, retracts = _ids(event, edit, payload.attributes)
    return replace(edit, id=edit_id, retracts=retracts, content_hash=content_hash(edit, retracts))


def _key_of(event: Event, retract: bool) -> FactKey | None:
    try:
        return fact_key(event.namespace, event.subject or "", event.relation or "", event.prompt or "")
    except ValueError as error:
        parts = event.subject or event.relation or event.prompt
        if retract and not parts and clean_text(event.retracts or event.id or ""):
            return None
        raise BadRecord("missing_key", str(error)) from error


def _bare_edit(event: Event, key: FactKey | None, payload: Payload, record: RawRecord) -> Edit:
    subject, relation, prompt, target, statement = (
        clean_text(text or "")
        for text in (event.subject, event.relation, event.prompt, event.target, event.statement)
    )
    return Edit(
        id="",
        op=Op(event.op),
        namespace=key.namespace if key else key_form(event.namespace) or "default",
        key=key,
        position=record.position,
        timestamp_ms=record.timestamp_ms,
        content_hash="",
        subject=subject,
        relation=relation,
        prompt=prompt,
        target=target or None,
        statement=statement_of(subject, relation, prompt, target, statement) if target else "",
        subject_aliases=distinct_names(event.subject_aliases),
        target_aliases=distinct_names(event.target_aliases),
        revision=event.revision,
        valid_from=event.valid_from,
        valid_until=event.valid_until,
        cardinality=Cardinality(event.cardinality),
        source_uri=clean_text(event.source.uri or payload.attributes.get("source", "")),
        publisher=clean_text(event.source.publisher or ""),
        confidence=event.confidence,
        flags=_flags(event),
        raw=record,
    )


def _ids(event: Event, edit: Edit, attributes: Mapping[str, str]) -> tuple[str, str | None]:
    """The edit's own id and the id that it withdraws.

    A retraction with `id` and no key withdraws that edit. With both, `id` names the retraction itself and,
    if an edit of the key bears it, also the edit that goes.
    """
    event_id = clean_text(event.id or "")
    own_id = event_id or clean_text(attributes.get("id", ""))
    if edit.op is Op.ASSERT:
        return own_id or derived_id(edit.position), None
    retracts = clean_text(event.retracts or "") or event_id or None
    if edit.key is None:
        named = clean_text(event.retracts or "")
        return (own_id if named and own_id else f"retract:{retracts}"), retracts
    return own_id or derived_id(edit.position), retracts


def derived_id(position: Position) -> str:
    """The id of an event that brings none: the same for every delivery of the record."""
    place = f"{position.topic_id}:{position.partition}:{position.offset}"
    return f"{place}~{position.log}" if position.log else place


def distinct_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names without spellings of earlier ones, in order; empty ones go."""
    unique: dict[str, str] = {}
    for name in map(clean_text, names):
        if key_form(name):
            unique.setdefault(key_form(name), name)
    return tuple(unique.values())


def _flags(event: Event) -> tuple[str, ...]:
    key_parts = [part for part in (event.subject, event.relation, event.prompt) if part]
    texts = [*key_parts, *(text for text in (event.target, event.statement) if text)]
    flags = []
    if any(mixed_script(part) for part in key_parts):
        flags.append("mixed_script")
    if any(has_hidden(text) for text in texts):
        flags.append("hidden_characters")
    return tuple(flags)


def content_hash(edit: Edit, retracts: str | None) -> str:
    """SHA-256 of what the event says, without its id, position and time of arrival."""
    key = edit.key.text if edit.key else edit.namespace
    names = (*edit.subject_aliases, "\x1e", *edit.target_aliases)
    parts = (edit.op, key, retracts, edit.subject, edit.relation, edit.prompt, edit.target, edit.statement)
    more = (edit.revision, edit.valid_from, edit.valid_until, edit.cardinality, edit.confidence)
    content = (*parts, *more, edit.source_uri, edit.publisher, *names)
    return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()


def _check_writer(edit: Edit, writers: Mapping[str, frozenset[str]]) -> None:
    if not writers:
        return
    allowed = writers.get(edit.publisher, writers.get("*", frozenset()))
    if "*" not in allowed and edit.namespace not in map(key_form, allowed):
        raise BadRecord(
            "namespace_forbidden", f"publisher {edit.publisher!r} may not write {edit.namespace!r}"
        )


def _check_names(edit: Edit, owners: NameOwners) -> None:
    name = owners.forbidden_name(edit)
    if name is not None:
        reserved_for = ", ".join(sorted(owners.of_name(name)))
        raise BadRecord(
            "name_reserved",
            f"publisher {edit.publisher!r} may not use the name {name!r}: it is reserved for {reserved_for}",
        )


def _withdraw_all(record: RawRecord) -> Edit:
    """A null value withdraws all of the key that the record's key names."""
    key = parse_record_key(record.key)
    edit = Edit(
        id=derived_id(record.position),
        op=Op.RETRACT,
        namespace=key.namespace,
        key=key,
        position=record.position,
        timestamp_ms=record.timestamp_ms,
        content_hash="",
        flags=(WITHDRAW_ALL,),
        raw=record,
    )
    return replace(edit, content_hash=content_hash(edit, WITHDRAW_ALL))


def parse_record_key(raw: bytes | None) -> FactKey:
    """Three forms: the parts joined by U+001F, a JSON object of them, or `namespace/subject/relation`."""
    if not raw:
        raise BadRecord("missing_key", "a null value needs a record key")
    if len(raw) > 16_384:
        raise BadRecord("too_large", "the record key is longer than 16 KiB")
    if raw.lstrip()[:1] == b"{":
        return _json_key(parse_object(raw, 4))
    try:
        text = raw.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise BadRecord("not_utf8", "the record key is not UTF-8") from error
    return _checked_key(_split_key(text))


def _split_key(text: str) -> tuple[str, str, str, str]:
    """(namespace, subject, relation, prompt) of a plain key; a prompt key has an empty relation.

    The number of slashes decides: two are namespace, subject and relation, one is namespace and prompt. With
    more, a part holds slashes itself and the key has several readings.
    """
    joined = "\x1f" in text
    parts = text.split("\x1f" if joined else "/")
    if len(parts) > 3 and not joined:
        raise BadRecord("ambiguous_key", f"the record key has {len(parts) - 1} slashes: {_CLEAR_KEYS}")
    if len(parts) < 2 or len(parts) > 3:
        raise BadRecord(
            "missing_key", f"the record key is not namespace, subject and relation: {_CLEAR_KEYS}"
        )
    namespace, subject, relation = (*parts, "")[:3]
    return (namespace, subject, relation, "") if relation else (namespace, "", "", subject)


def _json_key(parts: Mapping[str, object]) -> FactKey:
    names = ("namespace", "subject", "relation", "prompt")
    values = [parts.get(name) or "" for name in names]
    if not all(isinstance(value, str) for value in values):
        raise BadRecord("wrong_type", "the parts of the record key are strings")
    namespace, subject, relation, prompt = (str(value) for value in values)
    return _checked_key((namespace or "default", subject, relation, prompt))


def _checked_key(parts: tuple[str, str, str, str]) -> FactKey:
    code = forbidden_character("".join(parts))
    if code:
        raise BadRecord(code, "the record key carries a character that no fact may hold")
    try:
        return fact_key(*parts)
    except ValueError as error:
        raise BadRecord("missing_key", str(error)) from error


def original_position_header(position: Position, timestamp_ms: int) -> tuple[str, bytes]:
    """The header that a dead letter carries, and with it a replay through the topic."""
    text = f"{position.topic_id}/{position.partition}/{position.offset}/{timestamp_ms}"
    return ORIGINAL_POSITION, text.encode()


def record_key(event: Mapping[str, object]) -> bytes | None:
    """The Kafka record key of an event: its fact key, so that one key stays in one partition; None for a
    retraction by id alone."""
    parts = [str(event.get(name) or "") for name in ("namespace", "subject", "relation", "prompt")]
    if not any(parts[1:]):
        return None
    return fact_key(*parts).text.encode()


def to_json(event: Mapping[str, object]) -> bytes:
    """An event's fields as the bytes of a Kafka value; absent (None, empty) fields are left out."""
    present = {name: value for name, value in event.items() if value not in (None, "", [], (), {})}
    return json.dumps(present, ensure_ascii=False, allow_nan=False).encode()


def json_schema() -> str:
    """The JSON Schema of an event, as committed in `docs/event.schema.json`."""
    from lte_runtime.facts.schema import Event

    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Event.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(json_schema(), end="")
