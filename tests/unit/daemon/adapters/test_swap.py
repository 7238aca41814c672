"""The swap door on the stub engine: every answer wholly from one adapter, nothing lost, the pointer last."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from stub_adapters import save_adapter

from daemon.adapters.swap import Configured, Swap, Swapper
from lte_runtime.align.registry import Registry
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.engine.files import WEIGHTS
from lte_runtime.answer.engine.stub import STUB_ADAPTER, StubEngine, made_by
from lte_runtime.errors import Damaged, NotFound, Refused, Retry
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.types import GenerateRequest, Generation

SWAPS, STREAMS, TOKENS = 200, 16, 12
VERDICT: dict[str, Any] = {"promote": True}
# A target of many tokens, so that swaps fall into the middle of answers.
PROMPT = ("A long name " * 6).encode() + b"\nWho runs it?"


@dataclass
class House:
    """One daemon's adapters: state directory, registry, engine and the swap door."""

    directory: Path
    token_s: float = 0.0
    swaps: list[Swap] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.memory = EditMemory.open(self.directory / "state", StubEncoder())
        self.engine = StubEngine(token_s=self.token_s, queue_limit=1000)
        self.registry = Registry(self.directory / "adapters", self.engine.check_adapter)
        self.ledger = self.memory.adapters
        configured = Configured(STUB_ADAPTER)
        self.swapper = Swapper(self.engine, self.registry, self.ledger, configured, on_swap=self.swaps.append)

    def add(self, *numbers: int) -> None:
        for number in numbers:
            self.registry.add(save_adapter(self.directory / f"made-{number}", number), VERDICT)

    def ask(self) -> Generation:
        return self.engine.generate(GenerateRequest(PROMPT, adapter=True, max_new_tokens=TOKENS))

    def serving(self) -> str:
        made = self.ask().adapter
        return made.id if made else "none"

    def close(self) -> None:
        self.engine.close()
        self.memory.close()

    def restarted(self) -> House:
        self.close()
        return House(self.directory)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    made.swapper.start()
    yield made
    made.close()


def damage(house: House, number: int) -> None:
    entry = house.registry.get(f"align-{number:06d}")
    (entry.directory / WEIGHTS).write_bytes(b"torn")


def test_activate_serves_and_points(house: House) -> None:
    house.add(2, 3)
    assert house.serving() == "align-000000"
    house.swapper.activate("align-000002", "promoted", 5)
    assert house.serving() == "align-000002"
    assert {made_by(token) for token in house.ask().token_ids if token} == {2}
    now = house.ledger.active()
    assert (now.adapter, now.reason, now.epoch) == ("align-000002", "promoted", 5)
    assert now.sha256 == house.registry.get("align-000002").ref.sha256
    assert [swap.outcome for swap in house.swaps] == ["done"]


def test_serving_without_an_adapter_is_a_choice(house: House) -> None:
    house.swapper.activate("none", "no adapter wins")
    assert house.serving() == "none"
    house.swapper.activate("configured", "back")
    assert house.serving() == "align-000000"
    house.swapper.activate("none", "again")
    after = house.restarted()
    assert after.swapper.start() == ()
    assert after.serving() == "none"
    after.close()


def test_rollback_leads_back_step_by_step_and_never_forth(house: House) -> None:
    house.add(2, 3, 4)
    for number in (2, 3, 4):
        house.swapper.activate(f"align-{number:06d}", "promoted")
    seen = []
    for _ in range(3):
        house.swapper.rollback("worse")
        seen.append(house.serving())
    assert seen == ["align-000003", "align-000002", "align-000000"]
    with pytest.raises(Refused, match="go back"):
        house.swapper.rollback("worse")
    assert [each.reason for each in house.ledger.history(3)] == ["worse"] * 3


def test_a_rolled_back_adapter_is_not_what_the_next_rollback_finds(house: House) -> None:
    house.add(2, 3)
    house.swapper.activate("align-000002", "promoted")
    house.swapper.activate("align-000003", "promoted")
    house.swapper.rollback("worse")
    house.swapper.activate("align-000003", "second try")
    house.swapper.rollback("worse again")
    assert house.serving() == "align-000002"


def test_a_lower_epoch_is_refused(house: House) -> None:
    house.add(2, 3)
    house.swapper.activate("align-000002", "promoted", 7)
    with pytest.raises(Refused, match="epoch 6 is over"):
        house.swapper.activate("align-000003", "late", 6)
    with pytest.raises(Refused, match="epoch 6 is over"):
        house.swapper.rollback("late", 6)
    assert house.serving() == "align-000002"
    house.swapper.activate("align-000003", "same epoch", 7)
    assert house.serving() == "align-000003"


def test_what_cannot_serve_changes_nothing(house: House) -> None:
    house.add(2, 3)
    house.swapper.activate("align-000002", "promoted")
    before = house.ask().token_ids
    damage(house, 3)
    with pytest.raises(Damaged):
        house.swapper.activate("align-000003", "torn")
    with pytest.raises(NotFound):
        house.swapper.activate("align-000009", "unknown")
    assert house.ask().token_ids == before
    assert house.ledger.active().adapter == "align-000002"
    assert [swap.outcome for swap in house.swaps] == ["done", "refused", "refused"]
    assert all(swap.message for swap in house.swaps[1:])


def test_a_pointer_that_cannot_be_written_leaves_the_old_one_serving(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.add(2, 3)
    house.swapper.activate("align-000002", "promoted")

    def full(*_: object, **__: object) -> None:
        raise Retry("the disk is full")

    monkeypatch.setattr(house.ledger, "point", full)
    with pytest.raises(Retry):
        house.swapper.activate("align-000003", "promoted")
    assert house.serving() == "align-000002"
    assert [ref.id for ref in house.engine.adapters] == ["align-000000", "align-000002"]


def test_an_adapter_without_a_word_is_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.add(2)
    monkeypatch.setattr(
        "lte_runtime.answer.engine.stub._answer", lambda request: [0] if request.adapter_id else [1, 0]
    )
    with pytest.raises(Refused, match="smoke"):
        house.swapper.activate("align-000002", "silent")
    assert [ref.id for ref in house.engine.adapters] == ["align-000000"]
    assert house.ledger.active().no == 0


def test_a_start_serves_what_was_pointed_at(house: House) -> None:
    house.add(2, 3)
    house.swapper.activate("align-000002", "promoted")
    house.swapper.activate("align-000003", "promoted")
    after = house.restarted()
    assert after.swapper.start() == ()
    assert after.serving() == "align-000003"
    after.close()


@pytest.mark.parametrize(("torn", "serves"), [((3,), "align-000002"), ((2, 3), "align-000000")])
def test_a_damaged_adapter_at_start_lets_the_previous_one_serve(
    house: House, torn: tuple[int, ...], serves: str
) -> None:
    house.add(2, 3)
    for number in (2, 3):
        house.swapper.activate(f"align-{number:06d}", "promoted")
    for number in torn:
        damage(house, number)
    after = house
    for _ in range(2):
        after = after.restarted()
        problems = after.swapper.start()
        assert len(problems) == len(torn) + 1
        assert "align-000003 cannot be served" in problems[0]
        assert problems[-1] == f"{serves} serves instead"
        assert after.serving() == serves
        assert after.ledger.active().adapter == "align-000003"
    after.close()


def test_every_answer_comes_wholly_from_one_adapter(tmp_path: Path) -> None:
    """P10: swaps under concurrent streams. The stub's tokens say which adapter made them."""
    house = House(tmp_path, token_s=0.0002)
    house.swapper.start()
    house.add(2, 3, 4, 5)
    over = threading.Event()
    made: list[Generation] = []
    faults: list[BaseException] = []

    def stream() -> None:
        try:
            while not over.is_set():
                made.append(house.ask())
        except BaseException as error:  # noqa: BLE001 - told to the test
            faults.append(error)

    threads = [threading.Thread(target=stream) for _ in range(STREAMS)]
    for thread in threads:
        thread.start()
    try:
        swap(house, SWAPS)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert faults == []
    assert len(made) > SWAPS
    check_wholeness(made)
    assert len({generation.adapter for generation in made}) == 5
    assert [ref.id for ref in house.engine.adapters] == sorted({"align-000000", house.serving()})
    house.close()


def swap(house: House, count: int) -> None:
    """Activations with a rollback now and then."""
    for number in range(count):
        if number % 5 == 4:
            house.swapper.rollback("trial")
        else:
            house.swapper.activate(f"align-{2 + number % 4:06d}", "trial")


def check_wholeness(made: list[Generation]) -> None:
    for generation in made:
        assert generation.adapter is not None
        wanted = int(generation.adapter.id[-6:])
        assert {made_by(token) for token in generation.token_ids if token} == {wanted}
        assert generation.finish == "stop"


def test_the_check_sees_weights_that_change_under_an_answer(tmp_path: Path) -> None:
    """The rig is tested too: a swap in place must be caught."""
    house = House(tmp_path, token_s=0.005)
    begun = threading.Event()
    request = GenerateRequest(PROMPT, adapter=True, max_new_tokens=TOKENS, on_text=lambda _: begun.set())
    running = house.engine.submit(request)
    assert begun.wait(60)
    house.engine._versions.pin(adapter=True).model.number = 2
    with pytest.raises(AssertionError):
        check_wholeness([running.result(60)])
    house.close()
