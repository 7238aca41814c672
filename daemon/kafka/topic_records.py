"""Records of the shared topics that are no edits: read as strictly as edits, and passed over where bad."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from lte_runtime.errors import BadRecord
from lte_runtime.facts.wire import parse_object

log = logging.getLogger(__name__)
Record = TypeVar("Record")

# A record holds a few names and a reason; what is larger or deeper was written by something else.
MAX_BYTES = 64 << 10
MAX_DEPTH = 8
# Log lines for bad records, in one process: a topic full of them must not fill the disk. All are counted.
MAX_LOGGED = 1000

Number = Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]
"""An epoch or a time: what SQLite can hold."""
Name = Annotated[str, Field(strict=True, min_length=1, max_length=200)]
Reason = Annotated[str, Field(strict=True, max_length=8192)]
AdapterId = Annotated[str, Field(strict=True, pattern="^(align-[0-9]{6}|configured|none)$")]
Sha256 = Annotated[str, Field(strict=True, pattern="^([0-9a-f]{64})?$")]
"""Empty where no adapter is meant."""


def parse(kind: TypeAdapter[Record], value: bytes) -> Record:
    """The record in these bytes; raises `BadRecord` for the first thing that is wrong with them."""
    if len(value) > MAX_BYTES:
        raise BadRecord("too_large", f"{len(value)} bytes; at most {MAX_BYTES} are allowed")
    data = parse_object(value, MAX_DEPTH)
    try:
        return kind.validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadRecord("bad_field", f"{place}: {first['msg']}"[:200]) from error


class PassedOver:
    """Reports bad records: each to `on_bad` (topic, code) and to the log, once however often it is read."""

    def __init__(self, on_bad: Callable[[str, str], None] = lambda _topic, _code: None) -> None:
        self._on_bad = on_bad
        self._reported: set[tuple[str, int, int, int]] = set()

    def note(self, record: Any, error: BadRecord) -> None:
        """`record` is a consumer's record."""
        place = (record.topic, record.partition, record.offset)
        if (*place, record.timestamp) in self._reported:
            return
        self._on_bad(record.topic, error.code)
        if len(self._reported) < MAX_LOGGED:
            self._reported.add((*place, record.timestamp))
            log.warning(
                "bad record ignored: topic %s, partition %d, offset %d: %s (%s)", *place, error, error.code
            )
