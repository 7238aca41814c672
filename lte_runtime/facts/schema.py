"""The event as publishers write it: one pydantic model, from which `docs/event.schema.json` is made."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictFloat,
    StrictInt,
    ValidationError,
    WithJsonSchema,
)

from lte_runtime.errors import BadRecord

MAX_REVISION = 2**63 - 1
_DATE = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[Tt ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:[Zz]|[+-]\d{2}:?\d{2})?)?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_ms(value: object) -> int | None:
    """An RFC 3339 time, or a date (its first instant), as milliseconds since the epoch; naive means UTC."""
    if value is None:
        return None
    if not isinstance(value, str) or not _DATE.fullmatch(value.strip()):
        raise ValueError("needs a date or an RFC 3339 time")
    moment = datetime.fromisoformat(value.strip().upper())
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round((moment - _EPOCH).total_seconds() * 1000)


def from_ms(value: int | None) -> str | None:
    """The reverse of `to_ms`: RFC 3339 in UTC."""
    if value is None:
        return None
    moment = datetime.fromtimestamp(value / 1000, UTC)
    return moment.isoformat(timespec="milliseconds" if value % 1000 else "seconds").replace("+00:00", "Z")


Text = Annotated[str, Field(strict=True, max_length=8192)]
Name = Annotated[str, Field(strict=True, max_length=512)]
Names = Annotated[list[Name], Field(max_length=64)]
# `wire` reads numbers and booleans of these two as the text that was sent.
_LITERALS = ["string", "number", "boolean"]
Value = Annotated[Text, WithJsonSchema({"type": _LITERALS, "maxLength": 8192})]
ValueName = Annotated[Name, WithJsonSchema({"type": _LITERALS, "maxLength": 512})]
Moment = Annotated[
    int | None,
    BeforeValidator(to_ms),
    PlainSerializer(from_ms),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "string", "format": "date"},
                {"type": "null"},
            ]
        }
    ),
]


class EventSource(BaseModel):
    """Where the fact comes from and who vouches for it."""

    __qualname__ = "Source"  # its name under `$defs` of the published schema, which does not change
    model_config = ConfigDict(extra="ignore", frozen=True, title="Source")
    uri: Text | None = Field(
        default=None, description="Where it can be read. With `id` it makes the event unique."
    )
    publisher: Name | None = Field(
        default=None, description="Who publishes; namespaces can be limited by it."
    )


class Event(BaseModel):
    """One fact asserted, or withdrawn. Unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, title="lte.edits event")
    id: Name | None = Field(
        default=None,
        description="Unique within source and key; derived from the record's position when absent. "
        "A retraction without a key names the edit that it withdraws here.",
    )
    op: Literal["assert", "retract"] = Field(default="assert", description="What happens to the fact.")
    namespace: Name = Field(default="default", description="Facts of different namespaces never meet.")
    subject: Text | None = Field(default=None, description="What the fact is about.")
    subject_aliases: Names = Field(default_factory=list, description="Other names of the subject.")
    relation: Text | None = Field(default=None, description="Which property of the subject.")
    target: Value | None = Field(
        default=None,
        description="The value. In a retraction: one member of a set. A number or boolean is text.",
    )
    target_aliases: Annotated[list[ValueName], Field(max_length=64)] = Field(
        default_factory=list, description="Other names of the value; numbers and booleans as for the value."
    )
    prompt: Text | None = Field(
        default=None, description="Question or cloze, instead of subject and relation."
    )
    statement: Text | None = Field(
        default=None, description="The fact as a sentence; made from the parts if absent."
    )
    revision: Annotated[StrictInt, Field(ge=0, le=MAX_REVISION)] | None = Field(
        default=None,
        description="The publisher's version of the fact: the highest one wins, whenever it arrives.",
    )
    valid_from: Moment = Field(default=None, description="First instant at which the fact holds.")
    valid_until: Moment = Field(default=None, description="First instant at which it holds no longer.")
    cardinality: Literal["one", "many"] = Field(
        default="one", description="`many`: the key holds a set of values."
    )
    retracts: Name | None = Field(
        default=None, description="The id of the one edit that a retraction withdraws."
    )
    source: EventSource = Field(default_factory=EventSource, description="Where the fact comes from.")
    confidence: Annotated[StrictFloat | StrictInt, Field(ge=0, le=1)] | None = Field(
        default=None, description="The publisher's own; kept and shown, it decides nothing."
    )


def parse_event(data: dict[str, object]) -> Event:
    """Validate a JSON object; raises `BadRecord` with a stable code for the first thing that is wrong."""
    try:
        return Event.model_validate(_without_nulls(data))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"][:2])
        raise BadRecord(
            _code(str(first["loc"][0]), first["type"]), f"{place}: {first['msg']}"[:200]
        ) from error


def _without_nulls(data: dict[str, object]) -> dict[str, object]:
    """A null means absent, for every field."""
    return {name: value for name, value in data.items() if value is not None}


def _code(field: str, kind: str) -> str:
    if field == "revision":
        return "bad_revision"
    if field == "op" and kind == "literal_error":
        return "unknown_op"
    if field in ("valid_from", "valid_until"):
        return "bad_time"
    if kind in ("string_too_long", "too_long"):
        return "too_long"
    if kind == "string_unicode":
        return "lone_surrogate"
    return "wrong_type"
