"""Commits offsets to Kafka for lag tools. Nothing here is ever read back: the edit memory holds the truth."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from daemon.kafka.client_internals.clients import open_client
from lte_runtime.errors import Retry

log = logging.getLogger(__name__)
INTERVAL_S = 1.0


class OffsetReporter:
    """Own thread and connection, so that a slow or absent group coordinator cannot hold up ingest.

    The newest offsets are written at most once a second; older ones that were not written yet are dropped.
    """

    def __init__(self, options: Mapping[str, Any], topic: str, group_id: str) -> None:
        self._options = options
        self._topic = topic
        self._group_id = group_id
        self._lock = threading.Lock()
        self._waiting: dict[int, int] = {}
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def report(self, next_offsets: Mapping[int, int]) -> None:
        """Note the next offset of each partition; returns at once."""
        with self._lock:
            self._waiting.update(next_offsets)
        self._wake.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lte-offsets", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Write what is waiting, if a broker takes it within a few seconds, and end the thread."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def _run(self) -> None:
        admin: Any = None
        while not (self._stop.is_set() and not self._waiting):
            self._wake.wait()
            self._wake.clear()
            try:
                admin = admin or open_client(KafkaAdminClient, self._options)
                self._write(admin)
            except (Retry, KafkaError) as error:
                log.debug("offsets of %s not committed: %s", self._topic, error)
                _close(admin)
                admin = None
                self._wake.set()
                if self._stop.is_set():
                    return
            self._stop.wait(INTERVAL_S)
        _close(admin)

    def _write(self, admin: Any) -> None:
        with self._lock:
            offsets = dict(self._waiting)
        admin.alter_group_offsets(
            self._group_id,
            {
                TopicPartition(self._topic, partition): OffsetAndMetadata(offset, "", -1)
                for partition, offset in offsets.items()
            },
        )
        with self._lock:
            for partition, offset in offsets.items():
                if self._waiting.get(partition) == offset:
                    del self._waiting[partition]


def _close(admin: Any) -> None:
    if admin is not None:
        admin.close()
