"""The token of a development stack: made once, kept for its owner alone, taken by the gateway for writes."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from lte_runtime.private_files import FILE_MODE

TOKEN_BYTES = 32


def made(path: Path) -> Path:
    """The file, with a token in it; one that is there stays as it is."""
    if not path.exists():
        temporary = path.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "w") as file:
            file.write(f"lte_{secrets.token_urlsafe(TOKEN_BYTES)}\n")
        temporary.replace(path)
    return path
