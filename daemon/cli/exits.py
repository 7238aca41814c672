"""Exit codes, and how errors become one line that says what to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from lte_runtime.errors import (
    BadRequest,
    Cancelled,
    DeadlineExceeded,
    LteError,
    NotFound,
    Overloaded,
    Refused,
    Retry,
)

OK = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
NOT_FOUND = 4
REFUSED = 5
DEADLINE = 6
OVERLOADED = 7
INTERRUPTED = 130

_CODES: tuple[tuple[type[LteError], int], ...] = (
    (BadRequest, USAGE),
    (Retry, UNREACHABLE),
    (NotFound, NOT_FOUND),
    (Refused, REFUSED),
    (DeadlineExceeded, DEADLINE),
    (Overloaded, OVERLOADED),
    (Cancelled, INTERRUPTED),
)


def code_of(error: LteError) -> int:
    """The exit code of an error that was raised on purpose."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def guarded(command: Callable[[], object]) -> int:
    """Run `command` and return the exit code; an unexpected exception keeps its traceback."""
    try:
        command()
    except LteError as error:
        complain(str(error))
        return code_of(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # `lte edits list | head`: the reader has what it wanted. Keep the interpreter's flush quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    return OK


def complain(message: str) -> None:
    """One error on stderr, coloured on a terminal."""
    label = "\033[31merror:\033[0m" if sys.stderr.isatty() else "error:"
    print(f"{label} {message}", file=sys.stderr)
