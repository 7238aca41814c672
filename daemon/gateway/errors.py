"""Errors on HTTP: OpenAI's form, for every route, from one table of gRPC codes and one of the error tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from lte_runtime import errors

# Seconds: one answer of a small model has ended by then.
RETRY_AFTER_S = 1
_NO_ROUTE = {
    404: "there is nothing at this path: /docs lists the paths",
    405: "this path takes another method: /docs lists them",
}
# Nginx's code for a client that went away; nobody reads it but the metrics.
CLIENT_CLOSED = 499


@dataclass(frozen=True, slots=True)
class Kind:
    """What clients go by: HTTP status, and OpenAI's type and code."""

    status: int
    type: str
    code: str


INVALID = Kind(400, "invalid_request_error", "invalid_request")
UNAUTHENTICATED = Kind(401, "authentication_error", "invalid_api_key")
DENIED = Kind(403, "permission_error", "permission_denied")
NOT_FOUND = Kind(404, "invalid_request_error", "not_found")
UNSUPPORTED = Kind(400, "invalid_request_error", "unsupported_parameter")
NO_MODEL = Kind(404, "invalid_request_error", "model_not_found")
TIMED_OUT_BODY = Kind(408, "invalid_request_error", "request_timeout")
REFUSED = Kind(409, "invalid_request_error", "refused")
TOO_LARGE = Kind(413, "invalid_request_error", "request_too_large")
NOT_JSON = Kind(415, "invalid_request_error", "unsupported_media_type")
WRONG_HOST = Kind(421, "invalid_request_error", "host_not_allowed")
OVERLOADED = Kind(429, "rate_limit_error", "rate_limit_exceeded")
INTERNAL = Kind(500, "server_error", "internal_error")
UNAVAILABLE = Kind(503, "server_error", "unavailable")
TIMED_OUT = Kind(504, "server_error", "deadline_exceeded")
CANCELLED = Kind(CLIENT_CLOSED, "server_error", "cancelled")

_OF_GRPC: Mapping[str, Kind] = {
    "INVALID_ARGUMENT": INVALID,
    "OUT_OF_RANGE": INVALID,
    "UNAUTHENTICATED": UNAUTHENTICATED,
    "PERMISSION_DENIED": DENIED,
    "NOT_FOUND": NOT_FOUND,
    "FAILED_PRECONDITION": REFUSED,
    "RESOURCE_EXHAUSTED": OVERLOADED,
    "UNAVAILABLE": UNAVAILABLE,
    "DEADLINE_EXCEEDED": TIMED_OUT,
    "CANCELLED": CANCELLED,
}
_OF_ERROR: tuple[tuple[type[errors.LteError], Kind], ...] = (
    (errors.BadRequest, INVALID),
    (errors.BadRecord, INVALID),
    (errors.NotFound, NOT_FOUND),
    (errors.Refused, REFUSED),
    (errors.Overloaded, OVERLOADED),
    (errors.Retry, UNAVAILABLE),
    (errors.DeadlineExceeded, TIMED_OUT),
)


class HttpError(Exception):
    """A request that ends with an error of OpenAI's form. `param` names the field that is wrong."""

    def __init__(self, kind: Kind, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.param = param

    @property
    def body(self) -> dict[str, Any]:
        kind = self.kind
        about = {"message": str(self), "type": kind.type, "param": self.param, "code": kind.code}
        return {"error": about}

    @property
    def headers(self) -> dict[str, str]:
        if self.kind.status == UNAUTHENTICATED.status:
            return {"WWW-Authenticate": "Bearer"}
        passes = self.kind.status in (OVERLOADED.status, UNAVAILABLE.status)
        return {"Retry-After": str(RETRY_AFTER_S)} if passes else {}

    @property
    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.kind.status, self.headers)


def of_grpc(status: str, details: str, code: str | None = None) -> HttpError:
    """By the name of the gRPC code. The daemon's message is kept, and `code`, its own name of the fault."""
    kind = _OF_GRPC.get(status, INTERNAL)
    return HttpError(replace(kind, code=code) if code else kind, details or status)


def of_error(error: errors.LteError) -> HttpError:
    kind = next((kind for type_, kind in _OF_ERROR if isinstance(error, type_)), INTERNAL)
    code = error.code if isinstance(error, errors.BadRecord) else kind.code
    return HttpError(replace(kind, code=code), str(error))


def of_faults(faults: Sequence[Any]) -> HttpError:
    """The first of pydantic's faults, with the name of its field."""
    fault = faults[0]
    name = ".".join(map(str, fault["loc"]))
    return HttpError(INVALID, f"{name}: {fault['msg'].removeprefix('Value error, ')}", param=name)


def install(app: FastAPI) -> None:
    """Every error of a route leaves in OpenAI's form; the text of an unexpected one stays in the log."""

    @app.exception_handler(HttpError)
    async def _http(_: Request, error: HttpError) -> JSONResponse:
        return error.response

    @app.exception_handler(errors.LteError)
    async def _lte(_: Request, error: errors.LteError) -> JSONResponse:
        return of_error(error).response

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> JSONResponse:
        # FastAPI names first where it looked: body, query or path.
        return of_faults([{**fault, "loc": fault["loc"][1:]} for fault in error.errors()]).response

    @app.exception_handler(HTTPException)
    async def _starlette(_: Request, error: HTTPException) -> JSONResponse:
        kind = Kind(error.status_code, "invalid_request_error", "no_route")
        message = _NO_ROUTE.get(error.status_code, str(error.detail))
        response = HttpError(kind, message).response
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def _unexpected(_: Request, _error: Exception) -> JSONResponse:
        return HttpError(INTERNAL, "internal error; the gateway's log has it").response
