"""What systemd is told, by its notify protocol: each message is one datagram to `$NOTIFY_SOCKET`.

Without that variable nothing is sent. Used by the process's main thread alone.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

import structlog

from daemon.lifecycle import LifecycleStatus

log = structlog.get_logger(__name__)


class ServiceManager:
    """`address` as systemd writes it: a path, or a name that begins with @ for an abstract socket."""

    def __init__(self, address: str = "") -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._failed = False

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> ServiceManager:
        """The one that started this process; one that hears nothing where none did."""
        return cls(environ.get("NOTIFY_SOCKET", ""))

    def ready(self) -> None:
        """The sockets listen. The daemon may go on catching up for hours, which `alive` says."""
        self._send("READY=1")

    def alive(self, status: LifecycleStatus) -> None:
        """Feeds the watchdog, and gives `systemctl status` its line: the state with its reasons."""
        state = status.state.value + (" (stale)" if status.stale else "")
        line = " ".join(": ".join((state, *status.reasons)).split())
        self._send(f"WATCHDOG=1\nSTATUS={line}")

    def stopping(self) -> None:
        """From here on calls are drained and the last snapshot is written."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        """A manager that does not listen is no reason to stop answering: it is logged, once."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.sendto(message.encode(), self._address)
        except OSError as error:
            if not self._failed:
                log.warning("service_manager_unreachable", socket=self._address.strip("\0"), error=str(error))
            self._failed = True
        else:
            self._failed = False
