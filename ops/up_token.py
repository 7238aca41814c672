"""The token of a development stack: made once, for its owner alone; the daemon knows its hash."""

from __future__ import annotations

from pathlib import Path

from daemon.rpc.access import Role, unlimited
from daemon.rpc.token_file import SECTION, entry_line, new_token, token_hash, write_private

NAME = "lte-up"


def make(token_file: Path, principals_file: Path) -> None:
    """Writes a token with all rights, unless there is one, and the file of principals that names it; what
    `lte token new --add-to` has added to that file stays."""
    if not token_file.exists():
        write_private(token_file, f"{new_token()}\n")
    token = token_file.read_text("utf-8").strip()
    entry = entry_line(unlimited(NAME, Role), {"sha256": token_hash(token).hex()})
    lines = principals_file.read_text("utf-8").splitlines() if principals_file.exists() else []
    others = [line for line in lines if line != SECTION and not line.startswith(f'"{NAME}"')]
    write_private(principals_file, "\n".join((SECTION, entry, *others, "")))
