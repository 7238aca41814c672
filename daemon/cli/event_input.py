"""Facts from flags, files and stdin, as event objects ready for Kafka. Deep checks are the daemon's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from lte_runtime.errors import BadRecord, BadRequest
from lte_runtime.facts.wire import parse_json

Event = dict[str, Any]


def from_flags(**parts: Any) -> Event:
    """The parts that were given. Raises `BadRequest` when they name no fact."""
    event = {name: value for name, value in parts.items() if value not in (None, "", [], ())}
    source = {
        name: event.pop(flag)
        for flag, name in (("source_uri", "uri"), ("publisher", "publisher"))
        if flag in event
    }
    if source:
        event["source"] = source
    names_key = "prompt" in event or {"subject", "relation"} <= event.keys()
    if not names_key:
        raise BadRequest("name the fact by --subject and --relation, or by --prompt")
    return event


def from_lines(lines: Iterable[str], name: str) -> Iterator[Event]:
    """Events from JSON lines, or from one JSON array. Raises `BadRequest` naming the line."""
    numbered = ((number, line.strip()) for number, line in enumerate(lines, 1))
    filled = ((number, line) for number, line in numbered if line)
    for number, line in filled:
        if line.startswith("["):
            yield from _from_array("\n".join([line, *(later_line for _, later_line in filled)]), name)
            return
        yield _object(_parse(line, f"{name}, line {number}"), f"{name}, line {number}")


def _from_array(text: str, name: str) -> Iterator[Event]:
    for number, item in enumerate(_parse(text, name), 1):
        yield _object(item, f"{name}, item {number}")


def _parse(text: str, place: str) -> Any:
    """As the daemon reads it, so that numbers as targets reach Kafka as they stand in the file."""
    try:
        return parse_json(text)
    except (ValueError, RecursionError, BadRecord) as error:
        raise BadRequest(f"{place} is not JSON: {error} (one event on each line, or one array)") from None


def _object(item: Any, place: str) -> Event:
    if not isinstance(item, dict):
        raise BadRequest(f"{place} is not a JSON object: an event looks like {EXAMPLE}")
    return item


EXAMPLE = '{"subject": "Acme Corp", "relation": "CEO", "target": "Ann Lee"}'
