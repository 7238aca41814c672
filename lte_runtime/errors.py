"""The error tree: each class means one reaction of the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class LteError(Exception):
    """Root of the errors that this project raises on purpose."""


class Retry(LteError):
    """A passing fault (broker away, database busy): try the same thing again later."""


class BadRecord(LteError):
    """A Kafka record that is no edit: quarantine it with its reason, go on with the next one.

    `code` is a stable, short name (`not_utf8`, `too_large`, ...) used as metric label and DLQ header.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class BadRequest(LteError):
    """The caller asked for something that cannot be done as asked (INVALID_ARGUMENT)."""


class NotFound(LteError):
    """The named thing does not exist (NOT_FOUND)."""


class Refused(LteError):
    """The state or the configuration forbids it until an operator acts (FAILED_PRECONDITION)."""


class Overloaded(LteError):
    """A bounded queue is full (RESOURCE_EXHAUSTED): the caller may come back later."""


class DeadlineExceeded(LteError):
    """The work did not finish in the time that the caller gave."""


class Cancelled(LteError):
    """The caller went away; nobody waits for the result."""


class Damaged(LteError):
    """A file failed its hash or its format check: rebuild it or refuse it, never serve it."""


class Fatal(LteError):
    """Going on could lose or double data (failed fsync, lock lost): stop the process.

    Whoever owns the process says how, by `on_fatal`. It hears of every `Fatal` when it is made, in the thread
    that makes it: before anything can catch it and go on writing.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        _end_process(self)


def _nobody_owns_the_process(_: Fatal) -> None:
    """The caller of the library gets the error, and decides."""


_end_process: Callable[[Fatal], None] = _nobody_owns_the_process


@contextmanager
def on_fatal(end_process: Callable[[Fatal], None]) -> Iterator[None]:
    """Meanwhile have `end_process` called for every `Fatal` of this process."""
    global _end_process
    before, _end_process = _end_process, end_process
    try:
        yield
    finally:
        _end_process = before
