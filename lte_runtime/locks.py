"""Locks: one owner per state directory, one process at a piece of work, many readers or one writer."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from lte_runtime.errors import Refused
from lte_runtime.private_files import FILE_MODE, make_state_directory, unwritable


class DirectoryLock:
    """flock on `directory/lock`: held until `release` or the death of the process, whatever its kind.

    The loser raises `Refused`, which names the owner by what it wrote into the file. `Refused` too where the
    file cannot be written: read-only, full, or without the right.
    """

    def __init__(self, directory: Path) -> None:
        make_state_directory(directory)
        try:
            self._fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            raise unwritable(directory, error) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = _owner(os.pread(self._fd, 4096, 0))
            os.close(self._fd)
            raise Refused(f"state directory {directory} is in use by {owner}") from error
        try:
            # In place: on a full disk the block of the last owner is there still.
            os.ftruncate(self._fd, os.pwrite(self._fd, _self_description(), 0))
        except OSError as error:
            self.release()
            raise unwritable(directory, error) from error

    def release(self) -> None:
        """Give the directory free; harmless a second time."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _self_description() -> bytes:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started}).encode()


def _owner(raw: bytes) -> str:
    try:
        owner = json.loads(raw)
        return f"pid {owner['pid']} on {owner['host']}, started {owner['started']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


@contextmanager
def waiting_lock(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """flock on a file, which is made and stays: waits for other processes, after a call of `on_wait`.

    Raises OSError where the file cannot be made.
    """
    number = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


class ReadWriteLock:
    """Many readers or one writer. Not reentrant. A waiting writer holds back new readers, so that searches
    cannot starve it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._waiting = 0
        self._writing = False

    @contextmanager
    def read(self) -> Iterator[None]:
        with self._changed:
            while self._writing or self._waiting:
                self._changed.wait()
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                if not self._readers:
                    self._changed.notify_all()

    @contextmanager
    def write(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            while self._writing or self._readers:
                self._changed.wait()
            self._waiting -= 1
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
