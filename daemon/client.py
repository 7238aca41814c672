"""A thin client of the daemon: plain values in, plain JSON-able values out, errors of the project's own tree.

Importing this module is cheap; gRPC and the messages are imported with the first call.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from daemon.messages import (
    Json,
    Position,
    as_json,
    conversation,
    enum_name,
    event_fields,
    key_fields,
    message,
    module,
    question_fields,
    timestamp,
)
from lte_runtime import errors

if TYPE_CHECKING:
    import grpc

_DEFAULT_TIMEOUT_S = 30.0
_LARGEST_PAGE = 1000  # what the daemon gives at most in one page
# gRPC's own waits after a refused connection grow from 1 s to 2 minutes, and calls fail at once meanwhile: a
# client that outlives a restart of the daemon would go on saying "unavailable" long after it is back.
CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
# Targets of gRPC that may stand for several daemons: the calls go round among those that are SERVING.
_SEVERAL = ("ipv4:", "ipv6:", "dns:")
# What only reads may be asked of another daemon when one is gone. A publication may have arrived.
_READS = [
    ("AnswerService", "Answer"),
    ("AnswerService", "AnswerStream"),
    ("AnswerService", "Retrieve"),
    ("EditService", "GetEdit"),
    ("EditService", "ListEdits"),
    ("EditService", "GetHistory"),
    ("EditService", "WhyNot"),
]
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [
        {
            "name": [{"service": f"lte.v1.{service}", "method": method} for service, method in _READS],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


class Client:
    """Calls the daemon at `address` (unix:PATH, a path, or host:port), admin calls at `admin_address`.

    Several addresses of replicas, IP:PORT separated by commas, or one DNS name with several (dns:///HOST:PORT),
    take the calls in turn: those that are not SERVING are left out, and what only reads is tried again at
    another when one goes away.
    With `tls_ca` the connection is checked against these PEM roots; `tls_cert` and `tls_key` are the client's
    own certificate. `token_file` brings the bearer token.
    Every call raises `Retry` (not reachable, not ready), `BadRequest`, `NotFound`, `Refused`, `Overloaded`,
    `DeadlineExceeded`, `Cancelled` or `LteError`. Times are ISO 8601 texts or milliseconds since the epoch.
    """

    def __init__(
        self,
        address: str | Path | None,
        *,
        admin_address: str | Path | None = None,
        tls_ca: str | Path | None = None,
        tls_cert: str | Path | None = None,
        tls_key: str | Path | None = None,
        token_file: str | Path | None = None,
        timeout_s: float = _DEFAULT_TIMEOUT_S,
    ) -> None:
        self._address = target(address)
        self._admin_address = target(admin_address)
        self._tls_ca = tls_ca
        self._tls_pair = (tls_cert, tls_key)
        self._token = read_token(Path(token_file)) if token_file else None
        self._timeout_s = timeout_s
        self._channels: dict[str, grpc.Channel] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()
        self._channels = {}

    # -- questions -------------------------------------------------------------------------------------

    def answer(
        self,
        question: str,
        *,
        namespace: str = "default",
        max_new_tokens: int | None = None,
        at_least: Iterable[Position] = (),
        as_of: str | int | None = None,
        scope: str = "auto",
        earlier: Iterable[tuple[str, str]] = (),
        timeout_s: float | None = None,
    ) -> Json:
        """The answer with its evidence. `at_least`: positions that must be visible first.

        `earlier`: the turns before the question, each a role (user, assistant, system) and a text.
        """
        request_fields = question_fields(question, namespace, at_least, as_of, scope)
        return self._call(
            "answer",
            "Answer",
            timeout_s=timeout_s,
            max_new_tokens=max_new_tokens,
            messages=conversation(earlier, question),
            **request_fields,
        )

    def answer_stream(
        self,
        question: str,
        *,
        namespace: str = "default",
        max_new_tokens: int | None = None,
        at_least: Iterable[Position] = (),
        as_of: str | int | None = None,
        scope: str = "auto",
        timeout_s: float | None = None,
    ) -> Iterator[str | Json]:
        """Pieces of the text as they are made, then the whole answer."""
        request_fields = question_fields(question, namespace, at_least, as_of, scope)
        request = message("answer", "AnswerStreamRequest", max_new_tokens=max_new_tokens, **request_fields)
        stub = self._stub("answer")
        with _translated():
            for part in stub.AnswerStream(request, **self._options(timeout_s)):
                yield part.text if part.WhichOneof("part") == "text" else as_json(part.answer)

    def retrieve(
        self,
        question: str,
        *,
        namespace: str = "default",
        at_least: Iterable[Position] = (),
        as_of: str | int | None = None,
        scope: str = "auto",
        timeout_s: float | None = None,
    ) -> Json:
        """Facts and the gate's decision, without generation."""
        request_fields = question_fields(question, namespace, at_least, as_of, scope)
        return self._call("answer", "Retrieve", timeout_s=timeout_s, **request_fields)

    def report_feedback(self, verdict: str, *, adapter_id: str = "") -> bool:
        """`verdict` is good or bad; False when another adapter serves by now, or drift is not watched."""
        reply = self._call(
            "answer", "ReportFeedback", verdict=enum_name("VERDICT", verdict), adapter_id=adapter_id
        )
        return bool(reply["counted"])

    # -- edits -----------------------------------------------------------------------------------------

    def get_edit(self, edit_id: str) -> Json:
        return _part(self._call("edit", "GetEdit", edit_id=edit_id), "edit")

    def list_edits(
        self,
        *,
        namespace: str | None = None,
        subject: str | None = None,
        page_size: int = 0,
        page_token: str = "",
    ) -> Json:
        """{"edits", "next_page_token"}, the last applied first."""
        page: Json = {"page_size": page_size, "page_token": page_token}
        return self._call("edit", "ListEdits", namespace=namespace, subject=subject, **page)

    def history(self, subject: str, relation: str = "", *, namespace: str = "default") -> list[Json]:
        """All edits of a key, however many; without a relation the subject is a prompt."""
        edits: list[Json] = []
        page_token = ""
        while True:
            page = self.history_page(
                subject, relation, namespace=namespace, page_size=_LARGEST_PAGE, page_token=page_token
            )
            edits += page["edits"]
            page_token = page["next_page_token"]
            if not page_token:
                return edits

    def history_page(
        self,
        subject: str,
        relation: str = "",
        *,
        namespace: str = "default",
        page_size: int = 0,
        page_token: str = "",
    ) -> Json:
        """{"edits", "next_page_token"} of a key, the edit that ranks highest first."""
        page: Json = {"page_size": page_size, "page_token": page_token}
        return self._call("edit", "GetHistory", key=key_fields(subject, relation, namespace), **page)

    def why_not(self, edit_id: str, *, as_of: str | int | None = None) -> Json:
        return self._call("edit", "WhyNot", edit_id=edit_id, as_of=timestamp(as_of))

    def publish(self, events: Iterable[Mapping[str, Any]]) -> list[Json]:
        """Events as the topic's JSON objects; returns their positions."""
        reply = self._call("edit", "Publish", events=list(map(event_fields, events)))
        positions: list[Json] = reply["positions"]
        return positions

    def dry_run(
        self, event: Mapping[str, Any], *, max_probes: int = 0, timeout_s: float | None = None
    ) -> Json:
        """Which answers the event would change: {"applied", "winner_id", "probes"}; nothing is published."""
        fields = {"event": event_fields(event), "max_probes": max_probes}
        return self._call("edit", "DryRun", timeout_s=timeout_s, **fields)

    # -- administration --------------------------------------------------------------------------------

    def status(self) -> Json:
        return self._call("admin", "GetStatus")

    def verify_index(self, *, timeout_s: float = 600.0) -> Json:
        return self._call("admin", "VerifyIndex", timeout_s=timeout_s)

    def rebuild_index(self, *, timeout_s: float = 600.0) -> Json:
        return self._call("admin", "RebuildIndex", timeout_s=timeout_s)

    def take_snapshot(self, *, timeout_s: float = 600.0) -> Json:
        return _part(self._call("admin", "TakeSnapshot", timeout_s=timeout_s), "snapshot")

    def accept_gap(self, *, withdraw_lost: bool = False, dry_run: bool = False) -> Json:
        """Goes on behind missing history; `lost` are the edits that only a lost part of the log held."""
        return self._call("admin", "AcceptGap", withdraw_lost=withdraw_lost, dry_run=dry_run)

    def resume_ingest(self) -> Json:
        return self._call("admin", "ResumeIngest")

    def skip_record(self, partition: int, offset: int, *, resume_at: int | None = None) -> Json:
        """Leaves out the record that ingest is suspended at; returns {"resumed_at"}."""
        fields = {"partition": partition, "offset": offset, "resume_at": resume_at}
        return self._call("admin", "SkipRecord", **fields)

    def dead_letters(self, *, page_size: int = 0, page_token: str = "") -> Json:
        """{"dead_letters", "next_page_token"}, oldest first, without the records' bytes."""
        return self._call("admin", "ListDeadLetters", page_size=page_size, page_token=page_token)

    def dead_letter(self, number: int) -> Json:
        """One record with its bytes: `record_value` as text where it is UTF-8, else `record_value_base64`."""
        return _part(self._call("admin", "GetDeadLetter", id=number), "dead_letter")

    def replay_dead_letters(self, numbers: Iterable[int]) -> Json:
        return self._call("admin", "ReplayDeadLetters", ids=list(numbers))

    def erase(
        self, subject: str, relation: str = "", *, namespace: str = "default", timeout_s: float = 600.0
    ) -> Json:
        """Removes a fact for good; returns the receipt."""
        key = key_fields(subject, relation, namespace)
        return self._call("admin", "EraseFact", timeout_s=timeout_s, key=key)

    # -- drift -----------------------------------------------------------------------------------------

    def drift(self, *, past: int = 0) -> Json:
        """Readings, margins, reasons and blocks, and whether a re-alignment would start now; `past` has so
        many of the last readings of each name, oldest first, at most 120."""
        return self._call("admin", "GetDrift", past=past)

    def trigger_realignment(self, reason: str = "") -> Json:
        return _part(self._call("admin", "TriggerRealignment", reason=reason), "realignment")

    def realignment(self, run_id: str) -> Json:
        return _part(self._call("admin", "GetRealignment", id=run_id), "realignment")

    def realignments(self, *, page_size: int = 0) -> list[Json]:
        """Runs, the newest first."""
        runs: list[Json] = self._call("admin", "ListRealignments", page_size=page_size)["realignments"]
        return runs

    def cancel_realignment(self, run_id: str) -> Json:
        return _part(self._call("admin", "CancelRealignment", id=run_id), "realignment")

    def watch_realignment(self, run_id: str, *, timeout_s: float = 7200.0) -> Iterator[Json]:
        """The run at each change, until it has ended."""
        request = message("admin", "WatchRealignmentRequest", id=run_id)
        with _translated():
            for part in self._stub("admin").WatchRealignment(request, **self._options(timeout_s)):
                yield as_json(part.realignment)

    # -- adapters --------------------------------------------------------------------------------------

    def adapters(self) -> Json:
        """{"adapters", "active", "history", "serving", "epoch"}; verdicts and manifests as JSON texts."""
        return self._call("admin", "ListAdapters")

    def add_adapter(self, directory: str | Path, note: str = "", *, timeout_s: float = 600.0) -> Json:
        """Takes a directory on the daemon's machine into the registry; returns {"id", "sha256"}."""
        place = str(Path(directory).absolute())
        reply = self._call("admin", "AddAdapter", timeout_s=timeout_s, directory=place, note=note)
        return _part(reply, "adapter")

    def verify_adapter(self, adapter_id: str = "", *, timeout_s: float = 600.0) -> Json:
        """{"ok", "problems"} of one adapter, or of all."""
        return self._call("admin", "VerifyAdapter", timeout_s=timeout_s, id=adapter_id)

    def activate_adapter(self, adapter_id: str, reason: str = "", *, timeout_s: float = 600.0) -> Json:
        """Serves an adapter of the registry, `configured` or `none`; returns the move of the pointer."""
        reply = self._call("admin", "ActivateAdapter", timeout_s=timeout_s, id=adapter_id, reason=reason)
        return _part(reply, "active")

    def rollback_adapter(self, reason: str = "", *, timeout_s: float = 600.0) -> Json:
        return _part(self._call("admin", "Rollback", timeout_s=timeout_s, reason=reason), "active")

    # -- health ----------------------------------------------------------------------------------------

    def health(self, service: str = "", timeout_s: float = 5.0) -> str:
        """SERVING, NOT_SERVING or SERVICE_UNKNOWN."""
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        stub = health_pb2_grpc.HealthStub(self._channel(self._address))
        request = health_pb2.HealthCheckRequest(service=service)
        with _translated():
            state = stub.Check(request, timeout=timeout_s).status
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(state))

    def is_serving(self, timeout_s: float = 5.0) -> bool:
        """Whether questions are answered now; False too when nobody is there."""
        try:
            return self.health(timeout_s=timeout_s) == "SERVING"
        except (errors.Retry, errors.DeadlineExceeded):
            return False

    # -- the wire --------------------------------------------------------------------------------------

    def _call(self, service: str, method: str, *, timeout_s: float | None = None, **fields: Any) -> Json:
        request = message(service, f"{method}Request", **fields)
        call = getattr(self._stub(service), method)
        with _translated():
            return as_json(call(request, **self._options(timeout_s)))

    def _options(self, timeout_s: float | None) -> dict[str, Any]:
        metadata = [("authorization", f"Bearer {self._token}")] if self._token else None
        return {"timeout": timeout_s or self._timeout_s, "metadata": metadata}

    def _stub(self, service: str) -> Any:
        grpc_module = module(f"{service}_service_pb2_grpc")
        address = self._admin_address if service == "admin" else self._address
        stub = getattr(grpc_module, f"{service.capitalize()}ServiceStub")
        return stub(self._channel(address))

    def _channel(self, address: str | None) -> grpc.Channel:
        import grpc

        if address is None:
            raise errors.BadRequest(
                "the client has no address for this call: set address, or admin_address for admin calls"
            )
        if address not in self._channels:
            options = channel_options(address, tls=self._tls_ca is not None)
            if self._tls_ca and not address.startswith("unix:"):
                roots = tls_credentials(self._tls_ca, *self._tls_pair)
                self._channels[address] = grpc.secure_channel(address, roots, options)
            else:
                self._channels[address] = grpc.insecure_channel(address, options)
        return self._channels[address]


def tls_credentials(
    ca: str | Path, cert: str | Path | None, key: str | Path | None
) -> grpc.ChannelCredentials:
    """Roots that a daemon is checked against, and the client's own certificate if it has one; PEM files."""
    import grpc

    own = [Path(path).read_bytes() for path in (key, cert) if path]
    return grpc.ssl_channel_credentials(Path(ca).read_bytes(), *own)


def read_token(path: Path) -> str:
    """The token in the first line of a file. Raises `BadRequest`."""
    try:
        line = path.read_text("utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise errors.BadRequest(f"the token cannot be read from {path}: {error}") from None
    # Sent as a token, an entry would only be refused as unknown.
    if not line or line.startswith(("[", "#")) or "{" in line:
        raise errors.BadRequest(f"{path} must hold the token itself, not the daemon's rpc.token_file")
    return line


def channel_options(address: str, *, tls: bool) -> list[tuple[str, str | int]]:
    """gRPC's options of a channel to a `target`. Raises `BadRequest` where TLS has no name to check."""
    if not address.startswith(_SEVERAL):
        return list(CHANNEL_OPTIONS)
    if tls and not address.startswith("dns:"):
        raise errors.BadRequest(
            f"{address}: a certificate is checked against one name: give the replicas one DNS name and call "
            "dns:///HOST:PORT"
        )
    return [*CHANNEL_OPTIONS, ("grpc.service_config", json.dumps(_SERVICE_CONFIG))]


def target(address: str | Path | None) -> str | None:
    """A gRPC target: `unix:PATH` for a path, host:port as it is, `ipv4:` or `ipv6:` for several with commas.

    Raises `BadRequest` for several that are not all IP:PORT of one kind.
    """
    text = str(address) if address else ""
    if not text or text.startswith(("unix:", *_SEVERAL)):
        return text or None
    if "," in text and "/" not in text:
        return _several(text)
    host, colon, port = text.rpartition(":")
    if colon and host and port.isdigit() and "/" not in text:
        return text
    return f"unix:{Path(text).absolute()}"


def _several(text: str) -> str:
    addresses = [part.strip() for part in text.split(",")]
    try:
        hosts = [ipaddress.ip_address(urlsplit(f"//{part}").hostname or "") for part in addresses]
        ports = [urlsplit(f"//{part}").port for part in addresses]
    except ValueError:
        hosts, ports = [], []
    versions = {host.version for host in hosts}
    if len(versions) != 1 or None in ports:
        raise errors.BadRequest(
            f"{text!r}: several addresses are IP:PORT, all IPv4 or all IPv6; instead of host names give "
            "one DNS name that has all the addresses, dns:///HOST:PORT"
        )
    return f"ipv{versions.pop()}:{','.join(addresses)}"


def _part(answer: Json, name: str) -> Json:
    part: Json = answer[name] or {}
    return part


class _translated:
    """Turns a call's status into an error of the project's own tree."""

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        import grpc

        if isinstance(error, grpc.RpcError):
            raise _error(error) from error


def _error(error: Any) -> errors.LteError:
    """By gRPC code; the daemon's message is kept."""
    kinds: dict[str, type[errors.LteError]] = {
        "UNAVAILABLE": errors.Retry,
        "INVALID_ARGUMENT": errors.BadRequest,
        "NOT_FOUND": errors.NotFound,
        "FAILED_PRECONDITION": errors.Refused,
        "PERMISSION_DENIED": errors.Refused,
        "UNAUTHENTICATED": errors.Refused,
        "RESOURCE_EXHAUSTED": errors.Overloaded,
        "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
        "CANCELLED": errors.Cancelled,
        "DATA_LOSS": errors.Damaged,
    }
    return kinds.get(error.code().name, errors.LteError)(error.details() or error.code().name)
