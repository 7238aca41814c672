"""What stands on the control topic, folded: who owns re-alignment, which commands are to be run. Pure.

One partition, read from its beginning. A claim's offset is its epoch: whoever claimed last owns. A command is
taken by a record that carries the taker's epoch; it counts only where that is the epoch of its place in the
log, so that of several takers, dead or stopped ones among them, exactly one is right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

MOST_BYTES = 64 << 10
MOST_KEPT = 10_000
NO_EPOCH = -1


@dataclass(frozen=True, slots=True)
class Command:
    """Somebody asks for a re-alignment. Not run from `expires_ms` on; an id is run once, whatever comes."""

    id: str
    reason: str
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Control:
    """The topic up to `next`. `taken` maps a command to the epoch that took it."""

    next: int = 0
    epoch: int = NO_EPOCH
    owner: str = ""
    waiting: Mapping[str, Command] = field(default_factory=dict)
    taken: Mapping[str, int] = field(default_factory=dict)

    def due(self, now_ms: int) -> list[Command]:
        """Commands that nobody took and that have not expired, oldest first."""
        return [each for each in self.waiting.values() if each.expires_ms > now_ms]


def folded(state: Control, offset: int, value: bytes | None, group: str) -> Control:
    """The state behind one more record; what is no record of this group changes nothing."""
    state = replace(state, next=offset + 1)
    record = _parsed(value)
    if record is None or record.get("group", group) != group:
        return state
    kind = record.get("kind")
    if kind == "claim":
        return replace(state, epoch=offset, owner=str(record.get("instance", "")))
    if kind == "realign":
        return _commanded(state, record)
    if kind == "taken":
        return _taken(state, record)
    return state


def _parsed(value: bytes | None) -> Mapping[str, Any] | None:
    if not value or len(value) > MOST_BYTES:
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _commanded(state: Control, record: Mapping[str, Any]) -> Control:
    name, expires = record.get("id"), record.get("expires_ms")
    sound = isinstance(name, str) and 0 < len(name) <= 200 and type(expires) is int
    if not sound or name in state.taken or name in state.waiting:
        return state
    command = Command(str(name), str(record.get("reason", ""))[:1000], int(str(expires)))
    return replace(state, waiting=_newest({**state.waiting, command.id: command}))


def _taken(state: Control, record: Mapping[str, Any]) -> Control:
    name, epoch = record.get("id"), record.get("epoch")
    if not isinstance(name, str) or epoch != state.epoch or name in state.taken:
        return state
    waiting = {each: command for each, command in state.waiting.items() if each != name}
    return replace(state, waiting=waiting, taken=_newest({**state.taken, name: state.epoch}))


def _newest(kept: Mapping[str, Any]) -> Mapping[str, Any]:
    """A topic that keeps everything for years must not fill the memory."""
    return dict(list(kept.items())[-MOST_KEPT:])


def claim(instance: str, group: str, now_ms: int) -> bytes:
    return _record(kind="claim", instance=instance, group=group, time_ms=now_ms)


def taking(command: Command, epoch: int, group: str, now_ms: int) -> bytes:
    return _record(kind="taken", id=command.id, epoch=epoch, group=group, time_ms=now_ms)


def commanding(command: Command, group: str) -> bytes:
    return _record(
        kind="realign", id=command.id, reason=command.reason, expires_ms=command.expires_ms, group=group
    )


def _record(**values: object) -> bytes:
    return json.dumps(values, ensure_ascii=False, sort_keys=True).encode()
