"""EditService: the edit memory, read; and events on their way to Kafka."""

# ruff: noqa: ARG002 - the signatures are gRPC's.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from daemon.rpc import convert
from daemon.rpc.access import Principal
from daemon.rpc.answer_servicer import DEFAULT_NAMESPACE, deadline, gone
from daemon.rpc.call_context import principal_of
from daemon.rpc.gen.lte.v1 import common_pb2 as common
from daemon.rpc.gen.lte.v1 import edit_service_pb2 as pb
from daemon.rpc.gen.lte.v1 import edit_service_pb2_grpc
from daemon.rpc.services import Services
from lte_runtime.errors import BadRequest, Refused
from lte_runtime.facts import events
from lte_runtime.facts.events import EventLimits
from lte_runtime.facts.keys import fact_key
from lte_runtime.places import Places
from lte_runtime.types import Edit, FactKey, Position, RawRecord

DEFAULT_PAGE, LARGEST_PAGE = 100, 1000
MOST_EVENTS = 1000
# Who published a record, in the daemon's own word; `source.publisher` is the sender's.
PRINCIPAL_HEADER = "lte-principal"
DEFAULT_PROBES, MOST_PROBES = 16, 32


class EditServicer(edit_service_pb2_grpc.EditServiceServicer):
    def __init__(self, services: Services) -> None:
        self._services = services
        most = services.max_waiting
        self._publishing = Places(
            most, f"{most} calls wait for Kafka's acknowledgement already: publish later"
        )

    def GetEdit(self, request: pb.GetEditRequest, context: grpc.ServicerContext) -> pb.GetEditResponse:
        edit_id, caller = needed(request.edit_id, "edit_id"), principal_of(context)
        record = self._services.memory.get_edit(edit_id, in_namespace=caller.may_read)
        return pb.GetEditResponse(edit=convert.edit_record(record))

    def ListEdits(self, request: pb.ListEditsRequest, context: grpc.ServicerContext) -> pb.ListEditsResponse:
        page = self._services.memory.edits_page(
            namespace=request.namespace if request.HasField("namespace") else None,
            subject=request.subject if request.HasField("subject") else None,
            limit=page_size(request.page_size),
            after=request.page_token or None,
        )
        records = map(convert.edit_record, page.records)
        return pb.ListEditsResponse(edits=records, next_page_token=page.next_token or "")

    def GetHistory(
        self, request: pb.GetHistoryRequest, context: grpc.ServicerContext
    ) -> pb.GetHistoryResponse:
        key, size = key_of(request.key), page_size(request.page_size)
        page = self._services.memory.history_page(key, size, request.page_token or None)
        records = map(convert.edit_record, page.records)
        return pb.GetHistoryResponse(edits=records, next_page_token=page.next_token or "")

    def WhyNot(self, request: pb.WhyNotRequest, context: grpc.ServicerContext) -> pb.WhyNotResponse:
        at_ms = convert.milliseconds(request.as_of) if request.HasField("as_of") else None
        edit_id, caller = needed(request.edit_id, "edit_id"), principal_of(context)
        why = self._services.memory.why_not(edit_id, at_ms, in_namespace=caller.may_read)
        return pb.WhyNotResponse(winner_id=why.winner_id, reason=why.reason)

    def Publish(self, request: pb.PublishRequest, context: grpc.ServicerContext) -> pb.PublishResponse:
        if self._services.publisher is None:
            raise Refused("this daemon does not publish: write to the edits topic directly")
        if not 0 < len(request.events) <= MOST_EVENTS:
            raise BadRequest(f"send 1 to {MOST_EVENTS} events in one call, not {len(request.events)}")
        caller = principal_of(context)
        published = [attributed(convert.event(event), caller) for event in request.events]
        for event in published:
            check(event)
        with self._publishing.take():
            positions = self._services.publisher.publish(
                published, [(PRINCIPAL_HEADER, caller.name.encode())]
            )
        return pb.PublishResponse(positions=map(convert.position, positions))

    def DryRun(self, request: pb.DryRunRequest, context: grpc.ServicerContext) -> pb.DryRunResponse:
        services = self._services
        services.require_serving()
        if services.dry_runner is None:
            raise Refused("this daemon makes no dry runs")
        if not 0 <= request.max_probes <= MOST_PROBES:
            raise BadRequest(f"max_probes must lie between 0 and {MOST_PROBES}")
        result = services.dry_runner.run(
            check(convert.event(request.event)),
            max_probes=request.max_probes or DEFAULT_PROBES,
            deadline=deadline(context, services),
            cancelled=gone(context),
        )
        return convert.dry_run(result)


def attributed(event: dict[str, Any], caller: Principal) -> dict[str, Any]:
    """The event with the caller's name as its publisher, where it names none and the caller has one."""
    source = event.get("source") or {}
    if caller.is_anonymous or source.get("publisher"):
        return event
    return {**event, "source": {**source, "publisher": caller.name}}


def check(event: Mapping[str, Any]) -> Edit:
    """The event decoded as every daemon will; raises `BadRecord` for what none can use."""
    record = RawRecord("", Position("", 0, 0), events.record_key(event), events.to_json(event))
    return events.decode(record, EventLimits())


def needed(value: str, name: str) -> str:
    if not value:
        raise BadRequest(f"{name} is empty")
    return value


def page_size(size: int) -> int:
    if not 0 <= size <= LARGEST_PAGE:
        raise BadRequest(f"page_size must lie between 0 and {LARGEST_PAGE}")
    return size or DEFAULT_PAGE


def key_of(message: common.FactKey) -> FactKey:
    """The normalised key; without a relation the subject is a prompt."""
    namespace = message.namespace or DEFAULT_NAMESPACE
    try:
        if message.relation:
            return fact_key(namespace, message.subject, message.relation)
        return fact_key(namespace, prompt=message.subject)
    except ValueError as error:
        raise BadRequest(f"the key {error}") from error
