"""Becomes another program, bound to its parent: run as
`python -m daemon.realign.launch PARENT NICE MAX_FILE COMMAND...`.

Run as a child of the daemon. It asks the kernel for SIGKILL when the thread that made it dies, lowers its
priority, forbids core dumps and larger files than allowed, and is the program then. Imports nothing heavy.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> None:
    """PARENT NICE MAX_FILE_BYTES COMMAND...; does not return. Exit 1 when the parent is gone already."""
    parent, nice, most = (int(number) for number in arguments[:3])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it died before the kernel knew whom to tell
        sys.exit(1)
    os.nice(nice)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_FSIZE, most)
    command = list(arguments[3:])
    os.execvp(command[0], command)


def _lower(limit: int, most: int) -> None:
    _, hard = resource.getrlimit(limit)
    lowered = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(limit, (lowered, lowered))


if __name__ == "__main__":
    main(sys.argv[1:])
