"""Adapters on the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from daemon.adapters.manager import Listed, Listing
from daemon.rpc import convert
from daemon.rpc.gen.lte.v1 import admin_service_pb2 as pb
from lte_runtime.store.adapter_history import Activation, Trained

# Long lists that a manifest holds for machines.
_LONG = ("edit_ids",)


def listing(value: Listing) -> pb.ListAdaptersResponse:
    return pb.ListAdaptersResponse(
        adapters=map(info, value.adapters),
        active=activation(value.active),
        history=map(activation, value.history),
        serving=convert.adapter(value.serving),
        epoch=value.epoch,
    )


def info(value: Listed) -> pb.AdapterInfo:
    entry = value.entry
    return pb.AdapterInfo(
        id=entry.ref.id,
        sha256=entry.ref.sha256,
        origin=value.origin,
        active=value.active,
        serving=value.serving,
        added=convert.optional_time(entry.added_ms or None),
        size_bytes=entry.size_bytes,
        problem=entry.problem,
        trained_edits=value.trained_edits,
        tainted=map(_tainted, value.tainted),
        verdict=_text(entry.verdict),
        manifest=_text({name: field for name, field in entry.manifest.items() if name not in _LONG}),
    )


def activation(value: Activation) -> pb.Activation:
    return pb.Activation(
        number=value.no,
        adapter=value.adapter,
        sha256=value.sha256,
        reason=value.reason,
        epoch=value.epoch,
        time=convert.timestamp(value.at_ms),
    )


def _tainted(value: Trained) -> pb.TaintedEdit:
    return pb.TaintedEdit(edit_id=value.edit_id, why=value.why, noted=convert.timestamp(value.at_ms))


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) if value else ""
