"""The token of a development stack: made once, for its owner alone; the daemon knows its hash."""

from __future__ import annotations

import os
from pathlib import Path

from daemon.rpc.access import Role, unlimited
from daemon.rpc.token_file import SECTION, entry_line, new_token, token_hash
from lte_runtime.private_files import FILE_MODE

NAME = "lte-up"


def make(token_file: Path, principals_file: Path) -> None:
    """Writes a token with all rights, unless there is one, and the file of principals that names it."""
    if not token_file.exists():
        _write(token_file, f"{new_token()}\n")
    token = token_file.read_text("utf-8").strip()
    entry = entry_line(unlimited(NAME, Role), {"sha256": token_hash(token).hex()})
    _write(principals_file, f"{SECTION}\n{entry}\n")


def _write(path: Path, text: str) -> None:
    """Appear by rename, for the owner alone."""
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "w") as file:
        file.write(text)
    temporary.replace(path)
