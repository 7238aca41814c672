"""A backup under load, restored elsewhere, where a second daemon reads on to the same state."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from daemon_house import House, fact, question, run_lte, targets, until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

EVENTS, A_SECOND, BATCH = 3000, 200, 20


@contextmanager
def publishing(house: House) -> Iterator[None]:
    """About 200 events a second, a tenth of them corrections, until all are acknowledged at the end."""

    def publish() -> None:
        for start in range(0, EVENTS, BATCH):
            numbers = range(start, start + BATCH)
            house.publish(
                [fact(f"Firm {n if n % 10 else n // 2}", f"Owner {n}", revision=n) for n in numbers]
            )
            time.sleep(BATCH / A_SECOND)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def backed_up(house: House, to: Path) -> dict[str, object]:
    ran = house.lte("backup", str(to), "--state-dir", str(house.state_dir), "--json")
    assert ran.code == 0, ran.err
    report: dict[str, object] = ran.json
    return report


def test_a_backup_under_load_catches_up_elsewhere(
    make_house: Callable[..., House], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    house = make_house().start()
    with publishing(house):
        until(lambda: house.status()["memory"]["edits"] > EVENTS // 6, "edits to back up")
        backup = backed_up(house, tmp_path / "under-load.db")
    until(lambda: house.lag() == 0 and house.status()["memory"]["edits"] == EVENTS, "the first daemon")

    directory = tmp_path_factory.mktemp("elsewhere")
    command = ("restore", str(tmp_path / "under-load.db"), "--state-dir", str(directory / "state"), "--json")
    restored = run_lte(*command)
    assert restored.code == 0, restored.err
    assert restored.json["state_hash"] == backup["state_hash"]
    assert EVENTS // 6 < restored.json["edits"] < EVENTS
    assert run_lte(*command).code == 5

    second = make_house(directory=directory, topic=house.topic).start()
    until(lambda: second.status()["memory"]["edits"] == EVENTS, "the second daemon to catch up")
    assert second.lte("index", "verify").code == 0
    first_hash = backed_up(house, tmp_path / "first.db")["state_hash"]
    assert backed_up(second, tmp_path / "second.db")["state_hash"] == first_hash != backup["state_hash"]
    assert targets(second.ask(question("Firm 2999"))) == ["Owner 2999"]
    assert run_lte(*command, "--replace").code == 5
