"""`lte gateway` as a process in front of a daemon of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from daemon_house import House, until

from daemon.rpc.access import Principal, Role
from daemon.rpc.token_file import SECTION, entry_line, new_token, token_hash
from ops.ports import is_free


class GatewayProcess:
    """`settings` are environment variables of the gateway. Close it at the end."""

    def __init__(self, house: House, log: Path, port: int, **settings: str) -> None:
        self.house, self.log = house, log
        self.url = f"http://127.0.0.1:{port}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LTE_")}
        own = {
            "LTE_CLIENT__ADDRESS": f"unix:{house.stack.addresses.socket}",
            "LTE_GATEWAY__LISTEN": f"127.0.0.1:{port}",
            "LTE_GATEWAY__METRICS_LISTEN": "off",
        }
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "daemon", "gateway"],
                env={**inherited, **own, **settings},
                cwd=log.parent,
                stdout=output,
                stderr=output,
            )

    def wait(self) -> GatewayProcess:
        """Until the daemon answers through it."""
        until(self._is_ready, f"the gateway to serve; its log is {self.log}")
        return self

    def _is_ready(self) -> bool:
        return self._is_ok("/readyz")

    def is_listening(self) -> bool:
        """Whether it takes requests, with or without a daemon behind it."""
        return self._is_ok("/healthz")

    def _is_ok(self, path: str) -> bool:
        assert self.process.poll() is None, self.log.read_text("utf-8")
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, ConnectionError):
            return False

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@dataclass(frozen=True)
class Tokens:
    """A file of principals, and the tokens of it by name."""

    file: Path
    by_name: Mapping[str, str]

    def headers(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.by_name[name]}"}


TEAM_A = ("team-a",)
PRINCIPALS = (
    Principal("asker", frozenset({Role.ASKER}), read=TEAM_A),
    Principal("publisher", frozenset({Role.ASKER, Role.PUBLISHER}), read=TEAM_A, write=TEAM_A),
    Principal("operator", frozenset(Role), read=("*",), write=("*",)),
    Principal("expired", frozenset(Role), read=("*",), write=("*",), expires_s=1e9),
)


def make_tokens(directory: Path) -> Tokens:
    """A new token for each of `PRINCIPALS`."""
    tokens = {principal.name: new_token() for principal in PRINCIPALS}
    lines = [
        entry_line(principal, {"sha256": token_hash(tokens[principal.name]).hex()})
        for principal in PRINCIPALS
    ]
    file = directory / "principals.toml"
    file.write_text("\n".join((SECTION, *lines, "")), "utf-8")
    return Tokens(file, tokens)


def free_port() -> int:
    return next(port for port in range(18_464, 20_000) if is_free(port))


def started(house: House, directory: Path, **settings: str) -> GatewayProcess:
    """A gateway that serves."""
    return GatewayProcess(house, directory / "gateway.log", free_port(), **settings).wait()
