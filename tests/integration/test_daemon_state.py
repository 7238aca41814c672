"""One state directory, one daemon; another encoder or base model on an old state."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon_house import GUARD_S, House, fact, question, run_lte, targets

from lte_runtime.answer.encoder.stub import StubEncoder
from lte_runtime.answer.scope import gate

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]
REFUSED = 5


def test_the_second_daemon_names_the_first(house: House) -> None:
    """Expected within 2 s; the first one does not notice."""
    pid = house.stack.daemon_pid
    begin = time.monotonic()
    second = run_lte(
        "serve",
        **house.settings,
        LTE_STATE_DIR=str(house.state_dir),
        LTE_KAFKA__BOOTSTRAP=house.topic.bootstrap,
        LTE_METRICS__LISTEN="off",
    )
    took = time.monotonic() - begin
    print(f"the second daemon ended after {took:.2f} s")
    assert second.code == REFUSED
    assert f"pid {pid}" in second.err
    assert took < GUARD_S
    assert house.stack.daemon_exit() is None
    assert house.ask("Still there?")["scope"] == "base"


def test_the_lock_of_a_killed_owner_is_free(make_house: Callable[..., House]) -> None:
    """Also when a lock file with a pid that lives was copied there."""
    house = make_house().start()
    house.ask(question("Crane"), house.publish([fact("Crane", "Ida")]))
    house.stack.kill_daemon()
    lock = house.state_dir / "lock"
    assert lock.exists()
    lock.write_text(json.dumps({"pid": 1, "host": "here", "started": "2026-01-01T00:00:00+00:00"}))
    house.start()
    assert targets(house.ask(question("Crane"))) == ["Ida"]


def test_another_encoder_encodes_everything_again(make_house: Callable[..., House]) -> None:
    """Before READY: the first answers are right, and the vectors are the new encoder's."""
    old = make_house().start()
    events = [fact(f"Crane {n}", f"Driver {n}", "driver") for n in range(200)]
    old.ask(question("Crane 3", "driver"), old.publish(events))
    old.client.take_snapshot()
    assert old.status()["memory"]["encoder"] == "stub-64-1"
    old.stack.stop_daemon()
    new = make_house(directory=old.stack.directory, topic=old.topic, LTE_ENCODER__MODEL="stub:2").start()
    for n in (0, 7, 99, 199):
        assert targets(new.ask(question(f"Crane {n}", "driver"))) == [f"Driver {n}"]
    assert new.status()["memory"]["encoder"] == "stub-64-2"
    assert new.client.verify_index()["ok"]
    (found,) = [c for c in new.client.retrieve(question("Crane 7", "driver"))["candidates"]
                if c["key"]["subject"] == "crane 7"]  # fmt: skip
    asked, view = StubEncoder(2).encode([question("Crane 7", "driver"), "The driver of Crane 7"])
    assert found["dense"] == pytest.approx(float(asked @ view), abs=1e-3)


def test_a_gate_of_another_encoder_is_refused(make_house: Callable[..., House], tmp_path: Path) -> None:
    """Scores of one encoder mean nothing to a gate that was calibrated for another."""
    calibration = tmp_path / "gate.json"
    calibration.write_text(gate.lexical_calibration("stub-64-1").to_json())
    house = make_house(LTE_GATE__CALIBRATION=str(calibration))
    house.start()
    house.stack.stop_daemon()
    other = make_house(
        directory=house.stack.directory,
        topic=house.topic,
        LTE_ENCODER__MODEL="stub:2",
        LTE_GATE__CALIBRATION=str(calibration),
    )
    process = other.stack.launch_daemon()
    assert process.wait(GUARD_S) == REFUSED
    assert "calibrated for encoder stub-64-1" in other.log


@pytest.mark.model
def test_an_adapter_of_another_base_model_is_refused(
    make_house: Callable[..., House], tmp_path: Path
) -> None:
    """The state of one base model, then another one with the first one's adapter."""
    from tests.unit.answer.engine import tiny

    for seed, name in enumerate(("one", "two"), 1):
        tiny.save_model(tmp_path / name, seed=seed)
    tiny.save_adapter(tmp_path / "adapter", tmp_path / "one")
    adapter = {"LTE_MODEL__ADAPTER": str(tmp_path / "adapter"), "LTE_MODEL__DTYPE": "float32"}
    house = make_house(LTE_MODEL__PATH=str(tmp_path / "one"), **adapter).start()
    answer = house.ask(question("Winch"), house.publish([fact("Winch", "Ulla")]))
    assert (answer["scope"], answer["adapter"]["id"]) == ("edited", "align-000001")
    house.stack.stop_daemon()
    other = make_house(
        directory=house.stack.directory, topic=house.topic, LTE_MODEL__PATH=str(tmp_path / "two"), **adapter
    )
    process = other.stack.launch_daemon()
    assert process.wait(GUARD_S) == REFUSED
    assert "error: adapter adapter was made for another base model" in other.log


@pytest.mark.model
def test_a_promoted_adapter_of_the_base_model_before_does_not_serve_and_is_left_by_a_command(
    make_house: Callable[..., House], tmp_path: Path
) -> None:
    from tests.unit.answer.engine import tiny

    for seed, name in enumerate(("one", "two"), 1):
        tiny.save_model(tmp_path / name, seed=seed)
    tiny.save_adapter(tmp_path / "adapter", tmp_path / "one")
    exact = {"LTE_MODEL__ADAPTER": "none", "LTE_MODEL__DTYPE": "float32"}
    house = make_house(LTE_MODEL__PATH=str(tmp_path / "one"), **exact).start()
    assert house.lte("adapters", "add", str(tmp_path / "adapter")).code == 0
    assert house.lte("adapters", "activate", "align-000001").code == 0
    at = house.publish([fact("Winch", "Ulla")])
    assert house.ask(question("Winch"), at)["adapter"]["id"] == "align-000001"
    house.stack.stop_daemon()
    other = make_house(
        directory=house.stack.directory, topic=house.topic, LTE_MODEL__PATH=str(tmp_path / "two"), **exact
    ).start()
    status = other.status()
    assert status["state"] == "DEGRADED"
    (reason,) = status["reasons"]
    assert "align-000001 cannot be served" in reason
    assert "was made for another base model" in reason
    assert reason.endswith("no adapter serves instead")
    answer = other.ask(question("Winch"), at)
    assert (answer["scope"], answer["adapter"], targets(answer)) == ("edited", None, ["Ulla"])
    assert other.lte("adapters", "activate", "configured").code == 0
    assert (other.status()["state"], other.status()["reasons"]) == ("READY", [])
