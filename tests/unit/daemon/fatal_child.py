"""A process in which one sync of the disk fails during a chosen write: `fatal_child.py DIRECTORY WRITE`.

The write is done by the part of the daemon that does it there, which catches what its callers may see. A
second sync after the failed one ends the process with WROTE_AGAIN.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw

from daemon import logs
from daemon.ingest.ingest import Ingest
from daemon.kafka.announcements import Announcements, AnnouncementSettings
from daemon.kafka.control import ControlSettings, ControlTopic
from daemon.kafka.memory_source import MemoryLog, MemorySource
from daemon.lifecycle import Lifecycle, State
from daemon.process import end_process
from daemon.rpc.access import Role, unlimited
from daemon.rpc.interceptors import Guard
from daemon.rpc.listener import admin_listener
from daemon.rpc.rate_limit import RateLimits
from daemon.rpc.workers import ListenerThreads
from daemon.schedule import Schedule
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.errors import on_fatal
from lte_runtime.facts.events import fact_key
from lte_runtime.memory.edit_memory import EditMemory

WROTE_AGAIN = 3
GUARD_S = 60.0
armed = threading.Event()
failed = threading.Event()


def sync_fails() -> bool:
    """Whether this sync is the one that fails."""
    if failed.is_set():
        os._exit(WROTE_AGAIN)
    if armed.is_set():
        failed.set()
    return failed.is_set()


class FailingFile(apsw.VFSFile):  # type: ignore[misc]
    def xSync(self, flags: int) -> None:
        if sync_fails():
            raise apsw.IOError("fsync failed")
        super().xSync(flags)


class FailingDisk(apsw.VFS):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__("failing-disk", "unix", makedefault=True)

    def xOpen(self, name: object, flags: list[int]) -> apsw.VFSFile:
        return FailingFile("unix", name, flags)


def fail_fsync_of_files() -> None:
    real = os.fsync

    def fsync(number: int) -> None:
        if sync_fails():
            raise OSError(errno.EIO, "fsync failed")
        real(number)

    os.fsync = fsync


def replay(memory: EditMemory, log: MemoryLog) -> None:
    """An operator replays a quarantined record; the error goes to the caller."""
    lifecycle = Lifecycle()
    ingest = Ingest(memory, MemorySource(log), lifecycle)
    threading.Thread(target=ingest.run, name="ingest", daemon=True).start()
    while lifecycle.state is not State.READY:
        pass
    armed.set()
    ingest.replay([memory.quarantined()[0].id])


def called(act: Callable[[], object]) -> None:
    """A call from outside, whose error becomes a status."""
    threads = ListenerThreads("admin", 4)
    guard = Guard(admin_listener(), threads, lambda _: None, RateLimits(), longest_s=GUARD_S)
    context: Any = SimpleNamespace(abort_with_status=lambda _: None)
    armed.set()
    method, operator = "/lte.v1.AdminService/TakeSnapshot", unlimited("operator", Role)
    guard._unary(method, lambda *_: act(), operator, None, context)


def scheduled(act: Callable[[], object]) -> None:
    """A job of the timetable, which logs what goes wrong and runs again."""
    schedule = Schedule()
    schedule.every(0.01, "job", act)
    armed.set()
    schedule.start()


def announced(memory: EditMemory) -> None:
    """The position on the topic of adapters is kept; a fault is tried again."""
    replica: Any = SimpleNamespace(
        base_fingerprint="base", own_move=lambda: None, meta_get=memory.meta_get, meta_set=memory.meta_set
    )
    consumer = SimpleNamespace(
        partitions_for_topic=lambda _: {0},
        _cluster=SimpleNamespace(topic_id=lambda _: "another"),
        close=lambda **_: None,
    )
    says = Announcements(
        replica, AnnouncementSettings("nowhere:9092", retry_s=0.01), open_consumer=lambda _: consumer
    )
    armed.set()
    threading.Thread(target=says.run, name="adapters", daemon=True).start()


class Commanded(ControlTopic):
    """A control topic on which a command stands."""

    def _step(self) -> None:
        self._on_command(SimpleNamespace(id="1"))  # type: ignore[arg-type]


def commanded(memory: EditMemory) -> None:
    """A re-alignment that the control topic asks for is noted; a fault is tried again."""
    topic = Commanded(ControlSettings("nowhere:9092", retry_s=0.01))
    topic.take_commands(ready=lambda: True, on_command=lambda _: memory.meta_set("run", "1"))
    armed.set()
    threading.Thread(target=topic.run, name="control", daemon=True).start()


def filled(memory: EditMemory) -> MemoryLog:
    """One fact and one quarantined record, and a snapshot."""
    log = MemoryLog(partitions=1)
    log.append(json.dumps({"subject": "Acme", "relation": "boss", "target": "Ann"}).encode())
    log.append(b"{not json")
    lifecycle = Lifecycle()
    ingest = Ingest(memory, MemorySource(log), lifecycle)
    while lifecycle.state is not State.READY:
        ingest.step()
    memory.snapshot()
    return log


def main(directory: Path, write: str) -> None:
    disk = FailingDisk()
    fail_fsync_of_files()
    logs.configure("info", "json")
    memory = EditMemory.open(directory, StubEncoder())
    log = filled(memory)
    key = fact_key("default", "Acme", "boss")
    with on_fatal(end_process):
        {
            "replay": lambda: replay(memory, log),
            "erase": lambda: called(lambda: memory.erase(key)),
            "meta": lambda: called(lambda: memory.meta_set("name", "value")),
            "dead letters": lambda: scheduled(lambda: memory.mark_dead_lettered([1])),
            "pointer": lambda: called(lambda: memory.adapters.point("none", "", "by hand", 1)),
            "snapshot": lambda: scheduled(memory.snapshot),
            "announcements": lambda: announced(memory),
            "control": lambda: commanded(memory),
        }[write]()
        failed.wait(GUARD_S)
        memory.meta_set("after", "1")
    disk.unregister()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
