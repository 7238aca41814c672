"""What one publisher may do to another's names, through a daemon as a process: flags, metric, quarantine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from daemon_house import House, Json, fact, question, targets, until

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]


def by(publisher: str, **event: Any) -> Json:
    return {**event, "source": {"publisher": publisher}}


def flags(answer: Json) -> set[str]:
    return {flag for citation in answer["citations"] for flag in citation["flags"]}


def test_a_taken_name_answers_flagged_and_is_counted(make_house: Callable[..., House]) -> None:
    house = make_house().start()
    house.publish([by("hr", **fact("Quern Works", "Ina Torvald"))])
    until(lambda: targets(house.ask(question("Quern Works"))) == ["Ina Torvald"], "the first fact")
    capture = fact("Evil Corp", "DE00", "bank account", subject_aliases=["Quern Works"])
    positions = house.publish([by("shop", **capture)])
    answer = house.ask(question("Quern Works", "bank account"), positions)
    assert targets(answer) == ["DE00"]
    assert flags(answer) == {"foreign_name", "ambiguous"}
    assert house.ask(question("Quern Works"))["citations"][0]["target"] == "Ina Torvald"
    assert house.metrics()["lte_ingest_flagged_total", (("flag", "foreign_name"),)] == 1


def test_a_reserved_name_is_quarantined_and_can_be_replayed(make_house: Callable[..., House]) -> None:
    rights = '{"hr": {"names": ["Quern Works"]}}'
    house = make_house(LTE_KAFKA__PUBLISHERS=rights).start()
    capture = fact("Evil Corp", "DE00", "bank account", subject_aliases=["Quern Works"])
    house.publish([by("shop", **capture), by("hr", **fact("Quern Works", "Ina Torvald"))])
    until(lambda: targets(house.ask(question("Quern Works"))) == ["Ina Torvald"], "the owner's fact")
    rows = until(lambda: house.lte("dlq", "list", "--json").json, "the refused record")
    assert [row["code"] for row in rows] == ["name_reserved"]
    assert "reserved for hr" in rows[0]["message"]
    assert targets(house.ask(question("Evil Corp", "bank account"))) == []
    house.stack.stop_daemon()
    open_to_all = make_house(directory=house.stack.directory, topic=house.topic).start()
    assert open_to_all.lte("dlq", "replay", "--all").code == 0
    assert targets(open_to_all.ask(question("Evil Corp", "bank account"))) == ["DE00"]
