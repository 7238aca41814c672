"""Facts of the edit memory. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.gateway.page.views.answer import place_of
from daemon.gateway.page.views.formats import BAD, GOOD, PLAIN, WARN, milliseconds
from daemon.rpc.gen.lte.v1 import common_pb2, edit_service_pb2

CURRENT = "current"
_TONES = {CURRENT: GOOD, "scheduled": WARN, "conflict_lost": WARN, "retracted": BAD, "retraction": BAD}


@dataclass(frozen=True, slots=True)
class FactView:
    """One edit. `value` is what it says of its key; `place` and `time_ms` tell where and when it arrived."""

    edit_id: str
    namespace: str
    name: str
    relation: str
    value: str
    statement: str
    withdraws: bool
    state: str
    tone: str
    current: bool
    winner_id: str
    key: common_pb2.FactKey | None
    revision: int | None
    publisher: str
    uri: str
    time_ms: int
    place: str
    flags: tuple[str, ...]
    aliases: tuple[str, ...]
    valid_from_ms: int | None
    valid_until_ms: int | None


def fact_view(edit: edit_service_pb2.EditRecord) -> FactView:
    """What the page shows of an edit."""
    return FactView(
        edit_id=edit.id,
        namespace=edit.namespace,
        name=edit.subject or edit.prompt or edit.key.subject,
        relation=edit.relation,
        value=edit.target if edit.HasField("target") else "",
        statement=edit.statement,
        withdraws=edit.op == common_pb2.OP_RETRACT,
        state=edit.state,
        tone=_TONES.get(edit.state, PLAIN),
        current=edit.state == CURRENT,
        winner_id=edit.winner_id,
        key=edit.key if edit.HasField("key") else None,
        revision=edit.revision if edit.HasField("revision") else None,
        publisher=edit.source.publisher,
        uri=edit.source.uri,
        time_ms=milliseconds(edit.timestamp),
        place=place_of(edit.positions[0]) if edit.positions else "",
        flags=tuple(edit.flags),
        aliases=tuple(edit.subject_aliases),
        valid_from_ms=milliseconds(edit.valid_from) if edit.HasField("valid_from") else None,
        valid_until_ms=milliseconds(edit.valid_until) if edit.HasField("valid_until") else None,
    )
