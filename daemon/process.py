"""The process around a daemon: its signals, its state directory, its end after a fatal fault."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path

import structlog

from daemon.build import build
from daemon.realign.realigner import JOBS
from daemon.service_manager import ServiceManager
from daemon.settings import Settings
from lte_runtime.errors import Fatal
from lte_runtime.locks import DirectoryLock
from lte_runtime.private_files import UMASK, tighten

log = structlog.get_logger(__name__)
FAILED = 1


def serve(settings: Settings) -> None:
    """Run the daemon until SIGTERM or SIGINT. Raises the error of a part that cannot go on."""
    stop, started = threading.Event(), threading.Event()

    def end(*_: object) -> None:
        stop.set()
        if not started.is_set():
            raise SystemExit(0)  # loading a model can take minutes: what has started is undone at once

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    os.umask(UMASK)
    check_state_directory(settings.state_dir)
    manager = ServiceManager.of(os.environ)
    with build(settings, end_process) as daemon:
        started.set()
        manager.ready()
        try:
            daemon.run(stop, manager.alive)
        finally:
            manager.stopping()


def end_process(error: Fatal) -> None:
    """End at once, as a kill does, which the state survives: nothing may be written after a fatal fault."""
    thread = threading.current_thread().name
    log.critical(
        "fatal",
        error=str(error),
        thread=thread,
        advice="the process ends now: fix the cause and start it again",
    )
    logging.shutdown()
    os._exit(FAILED)


def check_state_directory(directory: Path) -> None:
    """Fail before the models are loaded: another daemon owns the directory, or others can change its files.

    Files that others may read are made private, and how many is logged.
    """
    lock = DirectoryLock(directory)
    try:
        # A training command may run as another user; what it leaves is checked before it is used.
        tightened = tighten(directory, scratch=JOBS)
    finally:
        lock.release()
    if tightened:
        log.info("permissions_tightened", directory=str(directory), files=tightened)
