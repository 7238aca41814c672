"""The principals of a running daemon: read at the start, and again when the token file has changed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from daemon.rpc import token_file
from daemon.rpc.access import HEADER, Principal, Unauthenticated
from daemon.rpc.token_file import Principals
from lte_runtime.errors import Refused

log = structlog.get_logger(__name__)

Metadata = Sequence[tuple[str, str | bytes]]
_Version = tuple[int, ...]


class TokenStore:
    """Thread-safe for callers; `look` belongs to one thread. Raises `Refused` for what is no token file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = _version(path)
        self._principals = token_file.read(path)
        self.fault = ""
        self._note_warnings()

    @property
    def principals(self) -> Principals:
        return self._principals

    def look(self) -> None:
        """Read the file if it has changed. If it cannot be read, or is wrong, the principals of before stay
        and `fault` says why, until a later look finds a good file."""
        version = _version(self._path)
        if version == self._version:
            return
        self._version = version
        try:
            self._principals = token_file.read(self._path)
        except Refused as error:
            self.fault = f"{error}; the tokens of before stay in force"
            log.error("token_file_refused", error=self.fault)
            return
        self.fault = ""
        log.info("token_file_read", path=str(self._path), principals=len(self._principals.all))
        self._note_warnings()

    def principal_of(self, token: str) -> Principal:
        """Whose token it is. Raises `Unauthenticated`."""
        return self._principals.of_token(token, time.time())

    def certified(self, subject: str) -> Principal:
        """Whose client certificate has this subject. Raises `Unauthenticated`."""
        return self._principals.of_subject(subject, time.time())

    def _note_warnings(self) -> None:
        for warning in self._principals.warnings:
            log.warning("token_file_old", warning=warning)


def token_in(metadata: Metadata) -> str | None:
    """The token of a call, None without one. Raises `Unauthenticated` for a header that is none."""
    values = [value for name, value in metadata if name == HEADER]
    if not values:
        return None
    if len(values) > 1 or not isinstance(values[0], str):
        raise Unauthenticated("malformed", "send one authorization header")
    return token_file.token_of(values[0])


def _version(path: Path) -> _Version:
    """Changes with the file; empty when there is none."""
    try:
        about = path.stat()
    except OSError:
        return ()
    return (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
