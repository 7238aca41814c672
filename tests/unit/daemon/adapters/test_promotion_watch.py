"""The watch after a swap, on the stub engine: a fall rolls back once, with its reason; nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from stub_adapters import save_adapter

from daemon.adapters.promotion_watch import PromotionWatch
from daemon.adapters.swap import Configured, Swapper
from lte_runtime.align.registry import Registry
from lte_runtime.align.watch import WatchPolicy
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.engine.stub import STUB_ADAPTER, StubEngine
from lte_runtime.errors import Retry
from lte_runtime.memory.edit_memory import EditMemory

HOUR_MS = 3_600_000


class House:
    def __init__(self, place: Path) -> None:
        self.now = 1_000_000
        self.memory = EditMemory.open(place / "state", StubEncoder(), now=lambda: self.now)
        self.engine = StubEngine()
        registry = Registry(place / "adapters", self.engine.check_adapter)
        for number in (2, 3):
            registry.add(save_adapter(place / f"made-{number}", number), {})
        self.ledger = self.memory.adapters
        self.swapper = Swapper(self.engine, registry, self.ledger, Configured(STUB_ADAPTER))
        self.swapper.start()
        self.watch = self.new_watch()

    def new_watch(self) -> PromotionWatch:
        return PromotionWatch(
            self.swapper, self.ledger, self.memory, WatchPolicy(), window_s=3600.0, now_ms=lambda: self.now
        )

    def probe(self, right: int, wrong: int) -> None:
        """So many of each, well mixed."""
        total = right + wrong
        for at in range(total):
            self.watch.probed("verbatim", at * right // total != (at + 1) * right // total)

    def serving(self) -> str:
        return self.engine.adapter.id if self.engine.adapter else "none"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    made.probe(90, 10)
    made.swapper.activate("align-000002", "promoted")
    yield made
    made.engine.close()
    made.memory.close()


def test_a_fall_rolls_back_with_its_reason(house: House) -> None:
    house.probe(20, 60)
    assert house.serving() == STUB_ADAPTER.id
    told = house.ledger.active()
    assert told.adapter == "configured"
    assert told.reason.startswith("align-000002: live probes fell by")
    assert len(house.ledger.history()) == 2


def test_a_restart_goes_on_with_the_counts(house: House) -> None:
    house.watch = house.new_watch()
    house.probe(5, 15)
    house.watch = house.new_watch()
    house.probe(15, 45)
    assert house.serving() == STUB_ADAPTER.id


def test_counts_of_an_older_adapter_are_not_compared(house: House) -> None:
    house.swapper.activate("align-000003", "promoted before anybody asked")
    house.probe(0, 100)
    assert house.serving() == "align-000003"


def test_no_fall_no_rollback(house: House) -> None:
    house.probe(85, 15)
    assert house.serving() == "align-000002"


def test_after_the_window_it_is_drifts_business(house: House) -> None:
    house.now += HOUR_MS + 1
    house.probe(0, 100)
    assert house.serving() == "align-000002"


def test_a_rollback_is_never_rolled_back(house: House) -> None:
    house.probe(90, 10)
    house.swapper.activate("align-000003", "promoted")
    house.probe(90, 10)
    house.swapper.rollback("an operator's")
    assert house.serving() == "align-000002"
    house.probe(0, 200)
    assert house.serving() == "align-000002"


def test_a_rollback_that_fails_is_tried_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise Retry("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(house.ledger, "step_back", full)
        house.probe(10, 70)
        assert house.serving() == "align-000002"
    house.watch.probed("verbatim", False)
    assert house.serving() == STUB_ADAPTER.id
