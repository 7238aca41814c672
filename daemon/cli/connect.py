"""Where the daemon and the broker are: flags, environment, file, `.lte/up.json`, default - strong to weak.

This reads a handful of names by itself: the full configuration costs more time than asking a question does.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lte_runtime.errors import BadRequest, Retry

if TYPE_CHECKING:
    from daemon.client import Client

UP_FILE = Path(".lte/up.json")
DEFAULT_STATE_DIR = ".lte/state"


@dataclass(frozen=True)
class Where:
    """What one place says about the daemon and the broker; None where it says nothing."""

    address: str | None = None
    admin_address: str | None = None
    bootstrap: str | None = None
    topic: str | None = None
    security: Mapping[str, Any] | None = None
    tls_ca: str | None = None
    token_file: str | None = None
    timeout_s: float | None = None
    tls_cert: str | None = None
    tls_key: str | None = None

    def over(self, weaker: Where) -> Where:
        """This place's words, and the weaker one's where this one is silent."""
        pairs = ((f.name, getattr(self, f.name), getattr(weaker, f.name)) for f in fields(self))
        return Where(**{name: weak if strong is None else strong for name, strong, weak in pairs})


def find(flags: Where, config: Path | None = None, environ: Mapping[str, str] | None = None) -> Where:
    """All that is known, the stronger place first. Raises `BadRequest` for a file that cannot be read."""
    environment = os.environ if environ is None else environ
    _check_names(environment)
    default = _from_settings({"state_dir": DEFAULT_STATE_DIR, "kafka": {"bootstrap": "127.0.0.1:9092"}})
    places = (
        flags,
        _from_settings(_nested(environment)),
        _from_settings(_read_toml(config, environment)),
        _from_up_file(UP_FILE),
        default.over(Where(topic="lte.edits", timeout_s=30.0)),
    )
    merged = Where()
    for place in places:
        merged = merged.over(place)
    return merged


def flags(
    address: str | None = None,
    socket: Path | None = None,
    admin_socket: Path | None = None,
    timeout: float | None = None,
    bootstrap: str | None = None,
    topic: str | None = None,
) -> Where:
    """What the command line says; `--socket` is the short way to write `--address unix:PATH`."""
    if address and socket:
        raise BadRequest("--address and --socket say the same thing: give one of them")
    return Where(
        address=unix(socket) if socket else address,
        admin_address=unix(admin_socket) if admin_socket else None,
        bootstrap=bootstrap,
        topic=topic,
        timeout_s=timeout,
    )


@contextmanager
def client(where: Where) -> Iterator[Client]:
    """An open client; a daemon that does not answer becomes an error that says how to start one."""
    from daemon.client import Client

    _require_socket(where.address)
    try:
        with Client(
            where.address,
            admin_address=where.admin_address,
            tls_ca=where.tls_ca,
            tls_cert=where.tls_cert,
            tls_key=where.tls_key,
            token_file=where.token_file,
            timeout_s=where.timeout_s or 30.0,
        ) as opened:
            yield opened
    except Retry as error:
        raise Retry(f"{error}\n{_how_to_start(where.address)}") from error


def paged(fetch: Callable[..., Mapping[str, Any]], name: str, limit: int, **filters: Any) -> Iterator[Any]:
    """Items of a paged call, `limit` at most."""
    token, remaining = "", limit
    while remaining > 0:
        page = fetch(page_size=min(remaining, 1000), page_token=token, **filters)
        yield from page[name]
        remaining -= len(page[name])
        token = page["next_page_token"]
        if not token:
            return


def unix(path: Path | str) -> str:
    """A path as an address."""
    return f"unix:{Path(path).absolute()}"


def _require_socket(address: str | None) -> None:
    path = (address or "").removeprefix("unix:")
    if address and address.startswith("unix:") and not os.path.exists(path):
        raise Retry(f"no daemon: the socket {path} does not exist\n{_how_to_start(address)}")


def _how_to_start(address: str | None) -> str:
    return (
        f"looked at {address}; start a daemon with `lte serve` (or `make up` to try things), "
        "or say where it is with --address, LTE_CLIENT__ADDRESS or lte.toml"
    )


# The names that the command line reads by itself.
_NAMES = (
    "state_dir",
    "client.address",
    "client.admin_address",
    "client.tls_ca",
    "client.tls_cert",
    "client.tls_key",
    "client.token_file",
    "client.timeout_s",
    "kafka.bootstrap",
    "kafka.topic",
    "rpc.socket",
    "rpc.admin_socket",
)
_SECURITY = "LTE_KAFKA__SECURITY__"


def _check_names(environ: Mapping[str, str]) -> None:
    """An `LTE_` name beyond ours is the full configuration's to judge: a typo is an error here too."""
    own = {_environment_name(name) for name in _NAMES} | {"LTE_CONFIG", "LTE_REQUIRE_ALL"}
    if any(name.startswith("LTE_") and name not in own for name in environ):
        from daemon.config import refuse_unknown_environment

        refuse_unknown_environment(environ)


def _environment_name(dotted: str) -> str:
    return "LTE_" + dotted.replace(".", "__").upper()


def _nested(environ: Mapping[str, str]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for dotted in _NAMES:
        value = environ.get(_environment_name(dotted))
        if value:
            section, _, name = dotted.rpartition(".")
            (nested.setdefault(section, {}) if section else nested)[name] = value
    security = {k.removeprefix(_SECURITY).lower(): v for k, v in environ.items() if k.startswith(_SECURITY)}
    if security:
        nested.setdefault("kafka", {})["security"] = security
    return nested


def _read_toml(config: Path | None, environ: Mapping[str, str]) -> dict[str, Any]:
    path = config or Path(environ.get("LTE_CONFIG") or "lte.toml")
    if not path.is_file():
        if config or environ.get("LTE_CONFIG"):
            raise BadRequest(f"configuration file {path} does not exist")
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path} is not TOML: {error}") from None


def _from_settings(values: Mapping[str, Any]) -> Where:
    client_section, rpc_section, kafka_section = (
        values.get(section) or {} for section in ("client", "rpc", "kafka")
    )
    state = values.get("state_dir")
    socket = rpc_section.get("socket") or (state and Path(state) / "lte.sock")
    admin = rpc_section.get("admin_socket") or (state and Path(state) / "admin.sock")
    timeout = client_section.get("timeout_s")
    return Where(
        address=client_section.get("address") or (unix(socket) if socket else None),
        admin_address=client_section.get("admin_address") or (unix(admin) if admin else None),
        bootstrap=kafka_section.get("bootstrap"),
        topic=kafka_section.get("topic"),
        security=kafka_section.get("security"),
        tls_ca=client_section.get("tls_ca"),
        tls_cert=client_section.get("tls_cert"),
        tls_key=client_section.get("tls_key"),
        token_file=client_section.get("token_file"),
        timeout_s=float(timeout) if timeout is not None else None,
    )


def _from_up_file(path: Path) -> Where:
    """The addresses that `lte up` left in the working directory."""
    try:
        up = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return Where()
    except ValueError as error:
        raise BadRequest(f"{path} is not JSON ({error}): remove it, `lte up` writes a new one") from None
    return Where(
        address=unix(up["socket"]) if up.get("socket") else up.get("grpc"),
        admin_address=unix(up["admin_socket"]) if up.get("admin_socket") else None,
        bootstrap=up.get("kafka"),
        topic=up.get("topic"),
        token_file=up.get("token_file") or None,
    )
