"""Who owns the shared topics before the control topic was read, and where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.adapters.ownership import ownership
from daemon.kafka.control import ControlSettings, ControlTopic
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.errors import Refused
from lte_runtime.memory.edit_memory import EditMemory


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[EditMemory]:
    opened = EditMemory.open(tmp_path, StubEncoder())
    yield opened
    opened.close()


def test_a_daemon_without_a_control_topic_owns_what_it_has(memory: EditMemory) -> None:
    memory.adapters.point("none", "", "by hand", 3)
    owner = ownership(None, memory.adapters, away=lambda: True)
    assert (owner.owns(), owner.epoch(), owner.manual_epoch()) == (True, 3, 3)


def test_nobody_owns_before_the_control_topic_was_read(memory: EditMemory) -> None:
    owner = ownership(ControlTopic(ControlSettings("nowhere:9092")), memory.adapters, away=lambda: True)
    assert not owner.owns()
    with pytest.raises(Refused, match="has not been read yet"):
        owner.epoch()
