"""How a question is asked beyond its text: by the field `lte` of a body, or by headers."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import Headers

from daemon.messages import Json, question_fields
from lte_runtime.errors import BadRequest

MOST_POSITIONS = 1000
_POSITION = re.compile(r"([\w-]{1,64}):(\d{1,10}):(\d{1,19})", re.ASCII)
_FIELD_OF_HEADER = {
    "x-lte-namespace": "namespace",
    "x-lte-as-of": "as_of",
    "x-lte-scope": "scope",
    "x-lte-at-least": "at_least",
}


# The years that the wire can hold.
Milliseconds = Annotated[int, Field(ge=-62_135_596_800_000, le=253_402_300_799_999)]


class Position(BaseModel):
    """Where a published event stands in Kafka."""

    model_config = ConfigDict(extra="forbid")
    topic_id: str = Field(max_length=64)
    partition: int = Field(ge=0, lt=1 << 31)
    offset: int = Field(ge=0, lt=1 << 63)


class LteOptions(BaseModel):
    """`as_of`: ISO 8601 or milliseconds. `at_least`: positions that the answer must know of."""

    model_config = ConfigDict(extra="forbid")
    namespace: str | None = None
    as_of: str | Milliseconds | None = None
    at_least: list[Position] = Field(default_factory=list, max_length=MOST_POSITIONS)
    scope: Literal["auto", "edited", "base"] | None = None

    def over(self, headers: Headers) -> LteOptions:
        """These options, and those of the headers for what the body leaves out. Raises `BadRequest`."""
        by_header: Json = {
            field: headers[name] for name, field in _FIELD_OF_HEADER.items() if name in headers
        }
        if "at_least" in by_header:
            by_header["at_least"] = positions(by_header["at_least"])
        try:
            return LteOptions.model_validate(by_header | self.model_dump(exclude_unset=True))
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            raise BadRequest(f"X-LTE-{fault['loc'][0]}: {fault['msg']}".replace("_", "-")) from None

    def fields(self, question: str) -> Any:
        """The fields of a request of the daemon. Raises `BadRequest` for a time that is none."""
        return question_fields(
            question,
            self.namespace or "",
            [position.model_dump() for position in self.at_least],
            self.as_of,
            self.scope or "auto",
        )


def positions(text: str) -> list[Json]:
    """TOPIC_ID:PARTITION:OFFSET, several separated by commas. Raises `BadRequest`."""
    matches = [_POSITION.fullmatch(part.strip()) for part in text.split(",")]
    if not all(matches):
        raise BadRequest("X-LTE-At-Least: write TOPIC_ID:PARTITION:OFFSET, several separated by commas")
    return [
        {"topic_id": match[1], "partition": int(match[2]), "offset": int(match[3])}
        for match in matches
        if match
    ]
