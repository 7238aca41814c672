"""What an edit costs: seconds, and the most memory that the process held meanwhile."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROCESS = Path("/proc/self")


@dataclass(slots=True)
class Cost:
    """Filled in when the measured block ends; `peak_mb` is of the whole process (MiB resident)."""

    seconds: float = 0.0
    peak_mb: float = 0.0


@contextmanager
def measured(process: Path = PROCESS) -> Iterator[Cost]:
    """Measures its block. Where the kernel cannot forget the peak, that since the start is given."""
    forget_peak(process)
    cost, began = Cost(), time.monotonic()
    try:
        yield cost
    finally:
        cost.seconds = time.monotonic() - began
        cost.peak_mb = round(peak_mb(process), 1)


def forget_peak(process: Path = PROCESS) -> bool:
    """Lets the peak of resident memory begin anew (Linux: 5 to clear_refs); False where that is refused."""
    try:
        (process / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_mb(process: Path = PROCESS) -> float:
    """VmHWM in MiB, else the peak since the process began."""
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
