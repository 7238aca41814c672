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


_WHY_NOT = {
    CURRENT: "Questions see it.",
    "scheduled": "Its validity has not begun.",
    "expired": "Its validity has ended, or no value of its key is valid now.",
    "superseded": "Another edit of the same key ranks higher: by revision, then validity, then arrival.",
    "conflict_lost": "Another edit of the same rank says something else, and arrived later.",
    "retracted": "It was withdrawn.",
    "retraction": "It withdraws a fact and is none itself.",
}


@dataclass(frozen=True, slots=True)
class WhyNotView:
    """`state` as the daemon names it, `reason` in a sentence, and what stands in the edit's place."""

    state: str
    reason: str
    instead: FactView | None


def why_not_view(
    reply: edit_service_pb2.WhyNotResponse, instead: edit_service_pb2.EditRecord | None
) -> WhyNotView:
    """Why an edit is not what questions see; `instead` is the edit that the reply names."""
    return WhyNotView(
        state=reply.reason,
        reason=_WHY_NOT.get(reply.reason, ""),
        instead=fact_view(instead) if instead else None,
    )
