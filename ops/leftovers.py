"""Children that a killed `lte up` left running: known by pid, start time and boot, never by name."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Mapping
from pathlib import Path

from daemon.realign.runner import started_at

# What an orderly stop of the daemon or of Kafka takes at most; then SIGKILL.
STOP_S = 30.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def note(path: Path, pids: Mapping[str, int]) -> None:
    """Write down children of this process, by rename."""
    children = {name: {"pid": pid, "started": started_at(pid)} for name, pid in pids.items()}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"boot": _boot(), "children": children}), encoding="utf-8")
    temporary.replace(path)


def end(path: Path) -> list[str]:
    """End the children that were noted and still run; returns their names. Removes the note."""
    try:
        written = json.loads(path.read_text("utf-8"))
        children = written["children"] if written["boot"] == _boot() else {}
        ended = [name for name, child in children.items() if _end(int(child["pid"]), str(child["started"]))]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        ended = []
    path.unlink(missing_ok=True)
    return ended


def _boot() -> str:
    return _BOOT_ID.read_text("ascii").strip()


def _end(pid: int, started: str) -> bool:
    """Through a pidfd, which goes on meaning this process whatever happens to its pid."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if started_at(pid) != started or _exited(process, 0.0):
            return False
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(process, number)
            if _exited(process, STOP_S):
                break
        return True
    except ProcessLookupError:  # it ended by itself
        return True
    finally:
        os.close(process)


def _exited(process: int, timeout_s: float) -> bool:
    return bool(select.select([process], [], [], timeout_s)[0])
