"""Fixtures of the tests on the real broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kafka_house import Running


@pytest.fixture
def ingesting() -> Iterator[Callable[..., Running]]:
    """Start ingest on a topic: `ingesting(topic, memory=None, **source settings)`."""
    from kafka_house import Running

    from daemon.kafka.source import KafkaSourceSettings

    running: list[Running] = []

    def start(topic: Any, memory: Any = None, **more: Any) -> Running:
        settings = more.pop("settings", None)
        stale_after_s = more.pop("stale_after_s", 10.0)
        source = KafkaSourceSettings(topic.bootstrap, topic.topic, refresh_s=0.5)
        running.append(Running(replace(source, **more), memory, settings, stale_after_s))
        return running[-1]

    yield start
    for each in running:
        each.stop()
