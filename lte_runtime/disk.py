"""What everything that keeps files needs: a file's hash, and that what was written lasts."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lte_runtime.errors import Fatal, Retry


def sha256_file(path: Path) -> str:
    """Hex digest of the file's bytes; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Makes the bytes of a file, or the names within a folder, survive a power cut; raises OSError."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def faults(what: str) -> Iterator[None]:
    """Turn faults of the file system into the project's: `Retry` when it is full, else `Fatal`."""
    try:
        yield
    except OSError as error:
        kind = Retry if error.errno in (errno.ENOSPC, errno.EDQUOT) else Fatal
        raise kind(f"{what}: {error}") from error
