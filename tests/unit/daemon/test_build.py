"""A daemon without a broker: what starts is stopped again, whatever is switched off and whatever fails."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from daemon.build import build
from daemon.config import load
from daemon.settings import Settings
from lte_runtime.errors import LteError
from lte_runtime.locks import DirectoryLock

ALWAYS = {"dead-letters", "ingest", "adapters", "audit", "control", "realign"}


def settings_of(state_dir: Path, **changes: object) -> Settings:
    values = {
        "kafka.bootstrap": "127.0.0.1:1",
        "model.path": "stub",
        "encoder.model": "stub",
        "metrics.listen": "off",
        "state_dir": state_dir,
    }
    return load(None, values | changes, environ={}).settings


def own_threads() -> set[str]:
    return ALWAYS & {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("changes", "threads"),
    [
        ({}, ALWAYS),
        ({"drift.enabled": False}, ALWAYS),
        ({"kafka.control_topic": "off"}, ALWAYS - {"control"}),
        ({"kafka.adapters_topic": "off", "kafka.audit_topic": "off"}, ALWAYS - {"adapters", "audit"}),
    ],
)
def test_a_daemon_starts_and_leaves_nothing_behind(
    changes: dict[str, object], threads: set[str], tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, **changes)
    with capture_logs() as logs, build(settings):
        assert own_threads() == threads
        assert settings.socket.exists()
    assert own_threads() == set()
    assert not settings.socket.exists()
    DirectoryLock(tmp_path).release()
    events = [line["event"] for line in logs]
    assert events.index("listening") < events.index("stopping") < events.index("stopped")


@pytest.mark.parametrize("changes", [{"model.path": "/nowhere"}, {"realign.window": "never"}])
def test_a_part_that_cannot_start_stops_those_before_it(changes: dict[str, object], tmp_path: Path) -> None:
    settings = settings_of(tmp_path, **changes)
    with pytest.raises(LteError, match="|".join(map(str, changes.values()))):
        build(settings)
    assert own_threads() == set()
    assert not settings.socket.exists()
    DirectoryLock(tmp_path).release()
