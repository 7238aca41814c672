"""Between the project's values and the wire's messages; no decision is made here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from daemon.dry_run import DryRun
from daemon.rpc.gen.lte.v1 import answer_service_pb2 as answers
from daemon.rpc.gen.lte.v1 import common_pb2 as common
from daemon.rpc.gen.lte.v1 import edit_service_pb2 as edits
from lte_runtime import types
from lte_runtime.errors import BadRequest
from lte_runtime.store.records import EditRecord

# Years 1 to 9999: what a Timestamp may hold.
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999


def timestamp(milliseconds: int) -> Timestamp:
    """Milliseconds since the epoch, cut to the years that the wire can hold."""
    bounded = min(max(milliseconds, _FIRST_MS), _LAST_MS)
    seconds, remainder = divmod(bounded, 1000)
    return Timestamp(seconds=seconds, nanos=remainder * 1_000_000)


def milliseconds(moment: Timestamp) -> int:
    """Raises `BadRequest` for a moment outside the years 1 to 9999."""
    total_ms = moment.seconds * 1000 + moment.nanos // 1_000_000
    if not _FIRST_MS <= total_ms <= _LAST_MS or not 0 <= moment.nanos < 1_000_000_000:
        raise BadRequest("a timestamp lies outside the years 1 to 9999")
    return total_ms


def iso(moment: Timestamp) -> str:
    """RFC 3339 in UTC with milliseconds."""
    at = datetime.fromtimestamp(milliseconds(moment) / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def optional_time(value: int | None) -> Timestamp | None:
    return None if value is None else timestamp(value)


def position(value: types.Position) -> common.Position:
    return common.Position(topic_id=value.topic_id, partition=value.partition, offset=value.offset)


def watermarks(values: Mapping[types.TopicPartition, int]) -> list[common.Watermark]:
    return [
        common.Watermark(topic_id=tp.topic_id, partition=tp.partition, next_offset=values[tp])
        for tp in sorted(values)
    ]


def at_least(positions: Iterable[common.Position]) -> dict[types.TopicPartition, int]:
    """Next offsets from which these positions are visible: one past the highest of each partition."""
    next_offsets: dict[types.TopicPartition, int] = {}
    for position in positions:
        if position.offset < 0 or position.partition < 0:
            raise BadRequest("at_least names a negative partition or offset")
        tp = types.TopicPartition(position.topic_id, position.partition)
        next_offsets[tp] = max(next_offsets.get(tp, 0), position.offset + 1)
    return next_offsets


def key(value: types.FactKey) -> common.FactKey:
    return common.FactKey(namespace=value.namespace, subject=value.subject, relation=value.relation)


def source(uri: str, publisher: str) -> common.Source:
    return common.Source(uri=uri, publisher=publisher)


def scope(value: types.Scope) -> common.Scope.ValueType:
    return common.SCOPE_EDITED if value is types.Scope.EDITED else common.SCOPE_BASE


_MODES = {
    common.SCOPE_MODE_UNSPECIFIED: types.ScopeMode.AUTO,
    common.SCOPE_MODE_AUTO: types.ScopeMode.AUTO,
    common.SCOPE_MODE_EDITED: types.ScopeMode.EDITED,
    common.SCOPE_MODE_BASE: types.ScopeMode.BASE,
}


def mode(value: common.ScopeMode.ValueType) -> types.ScopeMode:
    scope_mode = _MODES.get(value)
    if scope_mode is None:
        raise BadRequest(f"unknown scope {value}")
    return scope_mode


def gate(value: types.GateDecision) -> common.GateDecision:
    return common.GateDecision(
        scope=scope(value.scope),
        score=value.score,
        threshold=value.threshold,
        reason=value.reason,
        features=dict(value.features),
    )


def citation(value: types.Citation) -> common.Citation:
    fact = value.fact
    return common.Citation(
        edit_id=fact.edit_id,
        key=key(fact.key),
        statement=fact.statement,
        target=fact.target,
        score=value.score,
        hop=value.hop,
        position=position(fact.position),
        source=source(fact.source_uri, fact.publisher),
        valid_from=optional_time(fact.valid_from),
        valid_until=optional_time(fact.valid_until),
        flags=fact.flags,
        members=value.members,
        superseded=value.superseded,
        held_from=optional_time(value.held_from),
        held_until=optional_time(value.held_until),
    )


def candidate(value: types.Candidate) -> common.Candidate:
    return common.Candidate(
        edit_id=value.fact.edit_id,
        key=key(value.fact.key),
        statement=value.fact.statement,
        dense=value.dense,
        lexical=value.lexical,
        matched_name=value.matched_name,
        ambiguous=value.ambiguous,
    )


def adapter(value: types.AdapterRef | None) -> common.Adapter | None:
    return None if value is None else common.Adapter(id=value.id, sha256=value.sha256)


def answer(value: types.Answer, *, runtime: str, stale: bool, gap: bool) -> answers.AnswerResponse:
    return answers.AnswerResponse(
        text=value.text,
        scope=scope(value.scope),
        citations=map(citation, value.citations),
        adapter=adapter(value.adapter),
        watermarks=watermarks(value.watermarks),
        gate=gate(value.gate),
        stale=stale,
        gap=gap,
        finish=value.finish,
        timings_ms=dict(value.timings_ms),
        index_path=value.index_path,
        token_ids=value.token_ids,
        corrected_from=value.corrected_from,
        runtime=runtime,
        prompt_tokens=value.prompt_tokens,
    )


def retrieval(value: types.Retrieval, *, stale: bool, gap: bool) -> answers.RetrieveResponse:
    return answers.RetrieveResponse(
        citations=map(citation, value.citations),
        gate=gate(value.gate),
        candidates=map(candidate, value.candidates.items),
        watermarks=watermarks(value.candidates.watermarks),
        index_path=value.candidates.index_path,
        timings_ms=dict(value.timings_ms),
        stale=stale,
        gap=gap,
    )


def edit_record(value: EditRecord) -> edits.EditRecord:
    edit = value.edit
    many = edit.cardinality is types.Cardinality.MANY
    return edits.EditRecord(
        id=edit.id,
        op=common.OP_ASSERT if edit.op is types.Op.ASSERT else common.OP_RETRACT,
        namespace=edit.namespace,
        key=None if edit.key is None else key(edit.key),
        subject=edit.subject,
        relation=edit.relation,
        prompt=edit.prompt,
        target=edit.target,
        statement=edit.statement,
        subject_aliases=edit.subject_aliases,
        target_aliases=edit.target_aliases,
        revision=edit.revision,
        valid_from=optional_time(edit.valid_from),
        valid_until=optional_time(edit.valid_until),
        cardinality=common.CARDINALITY_MANY if many else common.CARDINALITY_ONE,
        source=source(edit.source_uri, edit.publisher),
        confidence=edit.confidence,
        retracts=edit.retracts,
        flags=edit.flags,
        timestamp=timestamp(edit.timestamp_ms),
        state=value.state,
        winner_id=value.winner_id,
        positions=map(position, value.positions),
        collapsed_ids=value.collapsed,
    )


def dry_run(value: DryRun) -> edits.DryRunResponse:
    return edits.DryRunResponse(
        key=key(value.key),
        applied=value.applied,
        winner_id=value.winner_id or None,
        probes=[
            edits.DryRunProbe(
                kind=change.kind,
                question=change.question,
                before=change.before.text,
                after=change.after.text,
                changed=change.changed,
                before_edit_ids=change.before.edit_ids,
                after_edit_ids=change.after.edit_ids,
            )
            for change in value.changes
        ],
    )


def event(message: edits.Event) -> dict[str, Any]:
    """The event as the JSON object that the edits topic carries."""
    event: dict[str, Any] = {"op": "retract" if message.op == common.OP_RETRACT else "assert"}
    for field, value in message.ListFields():
        if field.name in _EVENT_SCALARS:
            event[field.name] = value
        elif field.name in ("subject_aliases", "target_aliases"):
            event[field.name] = list(value)
        elif field.name in ("valid_from", "valid_until"):
            event[field.name] = iso(value)
    if message.cardinality == common.CARDINALITY_MANY:
        event["cardinality"] = "many"
    source_fields = {"uri": message.source.uri, "publisher": message.source.publisher}
    if any(source_fields.values()):
        event["source"] = {name: text for name, text in source_fields.items() if text}
    return event


_EVENT_SCALARS = (
    "id",
    "namespace",
    "subject",
    "relation",
    "target",
    "prompt",
    "statement",
    "revision",
    "confidence",
    "retracts",
)
