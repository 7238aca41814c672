"""Samples of the current keys, and what arrived since a row."""

from __future__ import annotations

from random import Random

from event_log import Log

from lte_runtime.types import Edit
from tests.unit.conftest import Opener


def post(log: Log, subject: str, target: str) -> Edit:
    return log.edit(subject=subject, relation="post", target=target)


def test_arrivals_come_in_the_order_in_which_they_were_applied(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    assert (memory.last_row(), memory.arrivals(0, 10)) == (0, [])
    memory.apply(log.batch(post(log, "Ada", "A"), post(log, "Bo", "B")))
    memory.apply(log.batch(post(log, "Ada", "C")))
    arrivals = memory.arrivals(0, 10)
    assert [(arrival.op, arrival.relation) for arrival in arrivals] == [("assert", "post")] * 3
    assert arrivals[0].key_id == arrivals[2].key_id != arrivals[1].key_id
    assert memory.arrivals(arrivals[1].row, 10) == arrivals[2:]
    assert memory.arrivals(0, 1) == arrivals[:1]
    assert memory.last_row() == arrivals[2].row
    facts = memory.facts_of_keys([arrival.key_id for arrival in arrivals if arrival.key_id is not None])
    assert sorted(fact.target for fact in facts) == ["B", "C"]


def test_a_sample_is_of_what_is_current(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    memory.apply(log.batch(*(post(log, f"S{number}", "x") for number in range(40))))
    assert {fact.target for fact in memory.sample_facts(100, Random(1))} == {"x"}
    assert len(memory.sample_facts(7, Random(1))) == 7
    few = memory.sample_facts(3, Random(2))
    assert few == memory.sample_facts(3, Random(2))
    assert len(few) <= 3


def test_names_of_kept_values(open_memory: Opener) -> None:
    memory = open_memory()
    for name in ("run-2", "run-1", "other"):
        memory.meta_set(name, "x")
    assert memory.meta_names("run-") == ["run-1", "run-2"]
