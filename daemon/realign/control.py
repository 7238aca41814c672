"""What stands on the control topic, folded: who owns re-alignment, which commands are to be run. Pure.

One partition, read from its beginning. A claim's offset is its epoch: whoever claimed last owns. A command is
taken by a record that carries the taker's epoch; it counts only where that is the epoch of its place in the
log, so that of several takers, dead or stopped ones among them, exactly one is right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from daemon.kafka.topic_records import Name, Number, Reason, parse
from lte_runtime.errors import BadRequest

MOST_KEPT = 10_000
# Characters of a command's reason that are kept: it goes into logs and run records.
MAX_REASON = 1000
NO_EPOCH = -1


@dataclass(frozen=True, slots=True)
class Command:
    """Somebody asks for a re-alignment. Not run from `expires_ms` on; an id is run once, whatever comes."""

    id: str
    reason: str
    expires_ms: int


class _Record(BaseModel):
    """A record without `group` is for every deployment. Unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    group: Name | None = None


class Claim(_Record):
    kind: Literal["claim"]
    instance: Name


class Realign(_Record):
    kind: Literal["realign"]
    id: Name
    reason: Reason = ""
    expires_ms: Number


class Taken(_Record):
    kind: Literal["taken"]
    id: Name
    epoch: Number


ControlRecord = Claim | Realign | Taken
_RECORD: TypeAdapter[ControlRecord] = TypeAdapter(Annotated[ControlRecord, Field(discriminator="kind")])


@dataclass(frozen=True, slots=True)
class Control:
    """The topic up to `next`. `takers` maps a command to the epoch that took it."""

    next: int = 0
    epoch: int = NO_EPOCH
    owner: str = ""
    waiting: Mapping[str, Command] = field(default_factory=dict)
    takers: Mapping[str, int] = field(default_factory=dict)

    def due(self, now_ms: int) -> list[Command]:
        """Commands that nobody took and that have not expired, oldest first."""
        return [command for command in self.waiting.values() if command.expires_ms > now_ms]


def check_reason(text: str) -> str:
    """An operator's reason, for logs and records; raises `BadRequest` when it is too long."""
    if len(text) > MAX_REASON:
        raise BadRequest(f"the reason is longer than {MAX_REASON} characters")
    return text.strip() or "requested by an operator"


def parsed(value: bytes | None) -> ControlRecord | None:
    """None for a tombstone; raises `BadRecord` for what is no control record."""
    return parse(_RECORD, value) if value else None


def folded(state: Control, offset: int, record: ControlRecord | None, group: str) -> Control:
    """The state behind one more record; None, or a record of another group, changes nothing."""
    state = replace(state, next=offset + 1)
    if record is None or record.group not in (None, group):
        return state
    if isinstance(record, Claim):
        return replace(state, epoch=offset, owner=record.instance)
    return _add_command(state, record) if isinstance(record, Realign) else _add_taken(state, record)


def _add_command(state: Control, record: Realign) -> Control:
    if record.id in state.takers or record.id in state.waiting:
        return state
    command = Command(record.id, record.reason[:MAX_REASON], record.expires_ms)
    return replace(state, waiting=_newest({**state.waiting, command.id: command}))


def _add_taken(state: Control, record: Taken) -> Control:
    if record.epoch != state.epoch or record.id in state.takers:
        return state
    waiting = {name: command for name, command in state.waiting.items() if name != record.id}
    return replace(state, waiting=waiting, takers=_newest({**state.takers, record.id: state.epoch}))


def _newest(entries: Mapping[str, Any]) -> Mapping[str, Any]:
    """A topic that keeps everything for years must not fill the memory."""
    return dict(list(entries.items())[-MOST_KEPT:])


def claim(instance: str, group: str, now_ms: int) -> bytes:
    return _record(kind="claim", instance=instance, group=group, time_ms=now_ms)


def taking(command: Command, epoch: int, group: str, now_ms: int) -> bytes:
    return _record(kind="taken", id=command.id, epoch=epoch, group=group, time_ms=now_ms)


def commanding(command: Command, group: str) -> bytes:
    return _record(
        kind="realign",
        id=command.id,
        reason=command.reason[:MAX_REASON],
        expires_ms=command.expires_ms,
        group=group,
    )


def _record(**values: object) -> bytes:
    return json.dumps(values, ensure_ascii=False, sort_keys=True).encode()
