"""The watch on drift in the whole daemon: probes are asked, `lte drift` shows them, feedback counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from daemon_house import House, fact, until

from lte_runtime.errors import BadRequest


def test_probes_readings_and_feedback(make_house: Callable[..., House]) -> None:
    house = make_house(LTE_DRIFT__CYCLE_S="1", LTE_DRIFT__LOOK_S="0.2", LTE_DRIFT__PROBES="8").start()
    house.publish([fact(f"Quay {number}", f"Owner {number}") for number in range(12)])
    until(lambda: house.status()["memory"]["current_facts"] == 12, "the facts")
    until(lambda: house.client.drift()["cycles"] >= 1, "a cycle of probes")
    house.client.report_feedback("bad")

    def readings() -> dict[str, float]:
        return {each["name"]: each["value"] for each in house.client.drift()["readings"]}

    until(lambda: {"edit_success", "negative_feedback"} <= set(readings()), "readings of both kinds")
    assert readings()["edit_success"] == 1.0
    assert readings()["edits_since_alignment"] == 12
    shown = house.lte("drift", "--json")
    assert shown.code == 0, shown.err
    assert shown.json["enabled"]
    assert not shown.json["would_start"]
    assert "new_edits" in {block["name"] for block in shown.json["blocks"]}
    until(lambda: house.client.drift()["cycles"] >= 3, "three cycles")
    past = [row for row in house.client.drift(past=2)["past"] if row["name"] == "edit_success"]
    assert [row["value"] for row in past] == [1.0, 1.0]
    assert past[0]["time"] < past[1]["time"]
    assert shown.json["past"] == []
    assert house.lte("drift", "--past", "1", "--json").json["past"]
    assert "--json" in house.lte("drift", "--past", "1").err
    with pytest.raises(BadRequest, match="between 0 and 120"):
        house.client.drift(past=121)
    lines = house.lte("drift").out.splitlines()
    assert lines[0].split("\t")[:2] == ["reading", "now"]
    assert any(line.startswith("edit_success\t1") for line in lines)
    metrics = house.metrics()
    assert metrics["lte_drift_reading", (("reading", "edit_success"),)] == 1.0
    assert metrics["lte_drift_would_start", ()] == 0
    assert metrics["lte_feedback_total", (("verdict", "bad"),)] == 1


def test_drift_can_be_switched_off(make_house: Callable[..., House]) -> None:
    house = make_house(LTE_DRIFT__ENABLED="false").start()
    assert not house.client.drift()["enabled"]
    assert not house.client.report_feedback("good")
    assert "drift.enabled" in house.lte("drift").err
