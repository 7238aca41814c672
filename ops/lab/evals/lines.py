"""JSON Lines that survive a kill: a line that was cut off is skipped, and the next one begins anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a file; none where there is no file."""
    if not path.is_file():
        return []
    records: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Adds one line; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as out:
        cut_off = out.tell() > 0 and not _ends_a_line(path)
        out.write(b"\n" * cut_off + json.dumps(line, ensure_ascii=False).encode() + b"\n")


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() == b"\n"
