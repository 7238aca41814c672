"""Errors on the wire: one table from the error tree to gRPC codes, with google.rpc details."""

from __future__ import annotations

import math

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from daemon.rpc.access import Denied, Unauthenticated
from daemon.rpc.rate_limit import RateLimited
from lte_runtime import errors

DOMAIN = "lte-daemon"
# Advice to clients that were refused: one answer of a small model has ended by then.
RETRY_DELAY_MS = 200

_CODES: tuple[tuple[type[errors.LteError], int, str], ...] = (
    (Denied, code_pb2.PERMISSION_DENIED, "NOT_ALLOWED"),
    (Unauthenticated, code_pb2.UNAUTHENTICATED, "TOKEN"),
    (RateLimited, code_pb2.RESOURCE_EXHAUSTED, "RATE_LIMITED"),
    (errors.Retry, code_pb2.UNAVAILABLE, "UNAVAILABLE"),
    (errors.BadRecord, code_pb2.INVALID_ARGUMENT, "BAD_RECORD"),
    (errors.BadRequest, code_pb2.INVALID_ARGUMENT, "BAD_REQUEST"),
    (errors.NotFound, code_pb2.NOT_FOUND, "NOT_FOUND"),
    (errors.Refused, code_pb2.FAILED_PRECONDITION, "REFUSED"),
    (errors.Overloaded, code_pb2.RESOURCE_EXHAUSTED, "OVERLOADED"),
    (errors.DeadlineExceeded, code_pb2.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    (errors.Cancelled, code_pb2.CANCELLED, "CANCELLED"),
    (errors.Damaged, code_pb2.DATA_LOSS, "DAMAGED"),
)


def status_of(error: Exception) -> status_pb2.Status:
    """The status of an error; what was not raised on purpose becomes INTERNAL without its text."""
    for kind, code, reason in _CODES:
        if isinstance(error, kind):
            return _status(code, reason, str(error), error)
    return _status(code_pb2.INTERNAL, "INTERNAL", "internal error; the daemon's log has it", error)


def _status(code: int, reason: str, message: str, error: Exception) -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)
    if isinstance(error, errors.BadRecord):
        info.metadata["code"] = error.code
    if isinstance(error, Unauthenticated):
        info.metadata["why"] = error.why
    details: list[Message] = [info]
    if code in (code_pb2.UNAVAILABLE, code_pb2.RESOURCE_EXHAUSTED):
        details.append(error_details_pb2.RetryInfo(retry_delay=_retry_delay(error)))
    return status_pb2.Status(code=code, message=message, details=map(_packed, details))


def _retry_delay(error: Exception) -> Duration:
    delay_ms = math.ceil(error.retry_s * 1000) if isinstance(error, RateLimited) else RETRY_DELAY_MS
    delay = Duration()
    delay.FromMilliseconds(delay_ms)
    return delay


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
