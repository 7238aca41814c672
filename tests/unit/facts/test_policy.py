"""The fold: who wins, what a retraction takes, what comes back, what holds when."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from event_log import NOW, Log

from lte_runtime.errors import NotFound
from lte_runtime.facts import policy
from lte_runtime.facts.events import WITHDRAW_ALL, EventLimits, decode, to_json
from lte_runtime.facts.policy import EARLIEST_MS, LATEST_MS, current, fold
from lte_runtime.facts.reasons import why_not
from lte_runtime.types import Edit, Position


def targets(*history: Edit, at: int = NOW, as_of: bool = False) -> set[str]:
    """The targets that questions see, checked to be the same for every order of a short history."""
    orders = itertools.permutations(history) if len(history) <= 5 else [history, history[::-1]]
    seen = {
        frozenset(edit.target or "" for edit in current(fold(order), at, as_of=as_of)) for order in orders
    }
    assert len(seen) == 1
    return set(seen.pop())


def test_the_latest_wins_without_revisions(log: Log) -> None:
    assert targets(log.fact("Ann"), log.fact("Bo")) == {"Bo"}


def test_the_highest_revision_wins_whenever_it_arrives(log: Log) -> None:
    assert targets(log.fact("Ann", revision=2), log.fact("Bo", revision=1)) == {"Ann"}
    assert targets(log.fact("Ann", revision=0), log.fact("Bo")) == {"Ann"}


def test_a_given_start_orders_facts_without_revision(log: Log) -> None:
    late = log.fact("Old", valid_from="2020-01-01")
    assert targets(log.fact("New", valid_from="2024-01-01"), late) == {"New"}


def test_the_same_revision_with_another_target_is_a_conflict(log: Log) -> None:
    history = [log.fact("Ann", id="a", revision=3), log.fact("Bo", id="b", revision=3)]
    assert targets(*history) == {"Bo"}
    why = why_not(fold(history), "a", NOW)
    assert (why.reason, why.winner_id) == ("conflict_lost", "b")


def test_the_same_revision_and_target_is_one_edit(log: Log) -> None:
    first, again = log.fact("Ann", id="a", revision=3), log.fact("ANN", id="b", revision=3)
    state = fold([again, first])
    assert [member.ids for member in state.members] == [("a", "b")]
    assert targets(first, again, log.retract(id="b")) == set()
    assert targets(first, again, log.retract(revision=3)) == set()


def test_a_second_delivery_counts_once_at_its_earliest_place(log: Log) -> None:
    early, late = log.fact("Ann", id="a", at=10), log.fact("Ann", id="a", at=30)
    assert targets(late, log.fact("Bo", id="b", at=20), early) == {"Bo"}


def test_the_same_value_for_another_time_is_another_edit(log: Log) -> None:
    """One revision of a rota names the same person for two weeks with another week between them."""
    weeks = (("Ann", "2024-01-01", "2024-01-08"), ("Bo", "2024-01-08", "2024-01-15"))
    weeks = (*weeks, ("Ann", "2024-01-15", "2024-01-22"))
    rota = [
        log.fact(name, id=f"week{n}", revision=4, valid_from=start, valid_until=end)
        for n, (name, start, end) in enumerate(weeks)
    ]
    first, second, third = (edit.valid_from for edit in rota)
    assert [member.ids for member in fold(rota).members] == [("week0",), ("week1",), ("week2",)]
    assert [targets(*rota, at=start or 0) for start in (first, second, third)] == [{"Ann"}, {"Bo"}, {"Ann"}]
    without = [*rota, log.retract(id="week2")]
    assert [targets(*without, at=start or 0) for start in (first, third)] == [{"Ann"}, set()]


def test_the_offset_decides_within_a_partition_whatever_clocks_say(log: Log) -> None:
    ahead = log.fact("Ann", id="a", at=NOW + 4000)
    assert targets(ahead, log.retract(at=NOW)) == set()
    ahead = log.fact("Ann", id="b", at=NOW + 9000)
    assert targets(ahead, log.fact("Bo", at=NOW)) == {"Bo"}
    assert targets(ahead, log.fact("Bo", at=NOW), log.retract(at=NOW - 5)) == {"Ann"}


@pytest.mark.parametrize("broken_ms", [2**62, -1, 0, EARLIEST_MS - 1, LATEST_MS])
def test_a_timestamp_that_no_working_clock_gives_counts_as_none(log: Log, broken_ms: int) -> None:
    broken = log.fact("Ann", id="a", at=broken_ms)
    assert targets(broken, log.fact("Bo", at=NOW)) == {"Bo"}
    assert targets(broken, log.retract(at=NOW)) == set()
    early = log.fact("Cy", at=NOW)
    assert targets(early, log.fact("Dee", at=broken_ms)) == {"Dee"}
    assert targets(early, log.fact("Dee", at=broken_ms), at=NOW, as_of=True) == {"Dee"}


def test_clocks_decide_between_partitions(log: Log) -> None:
    def fact_in(partition: int, target: str, at: int) -> Edit:
        value = to_json({"subject": "Acme", "relation": "boss", "target": target})
        return decode(log.record(value, timestamp_ms=at, partition=partition), EventLimits(), NOW)

    assert targets(fact_in(1, "Ann", NOW + 10), fact_in(0, "Bo", NOW)) == {"Ann"}
    # What stands behind a record in its partition is at least as late as that record.
    assert targets(fact_in(0, "Ann", NOW + 20), fact_in(0, "Bo", NOW), fact_in(1, "Cy", NOW + 10)) == {"Bo"}


def test_records_of_a_cut_log_are_before_those_that_took_their_offsets(log: Log) -> None:
    lost = log.fact("Ann", id="a", offset=97, at=NOW + 500)
    later = replace(log.fact("Bo", id="b", at=NOW), position=Position("T", 0, 92, log=1))
    assert targets(lost, later) == {"Bo"}


def test_a_retraction_of_the_key_restores_what_was_before(log: Log) -> None:
    history = [log.fact("Ann"), log.fact("Bo"), log.retract()]
    assert targets(*history) == {"Ann"}
    assert targets(*history, log.retract()) == set()
    assert targets(*history, log.fact("Cy")) == {"Cy"}


def test_a_retraction_takes_equal_facts_straight_below_too(log: Log) -> None:
    assert targets(log.fact("Ann"), log.fact("Bo"), log.fact("Bo"), log.retract()) == {"Ann"}
    assert targets(log.fact("Bo"), log.fact("Ann"), log.fact("Bo"), log.retract()) == {"Ann"}


def test_a_retraction_by_id_takes_that_edit_alone(log: Log) -> None:
    history = [log.fact("Ann", id="a"), log.fact("Bo", id="b")]
    assert targets(*history, log.retract(id="a")) == {"Bo"}
    assert targets(*history, log.retract(id="b")) == {"Ann"}
    assert targets(*history, log.retract(id="b"), log.retract(id="b")) == {"Ann"}
    assert targets(*history, log.retract(), log.retract(id="b")) == {"Ann"}


def test_a_retraction_with_key_and_id(log: Log) -> None:
    history = [log.fact("Ann", id="a"), log.fact("Bo", id="b")]
    by_key = {"subject": "Acme", "relation": "boss"}
    assert targets(*history, log.retract(id="a", **by_key)) == {"Bo"}
    assert targets(*history, log.retract(id="of its own", **by_key)) == {"Ann"}
    assert targets(*history, log.retract(id="r", retracts="a", **by_key)) == {"Bo"}


def test_a_retraction_may_come_before_its_assertion(log: Log) -> None:
    tombstone = log.retract(revision=7)
    assert targets(tombstone, log.fact("Ann", revision=7)) == set()
    assert targets(tombstone, log.fact("Bo", revision=8)) == {"Bo"}
    assert targets(log.retract(id="c"), log.fact("Cy", id="c")) == set()
    early = log.fact("Dee", at=1)
    assert targets(log.retract(at=2), early) == set()


def test_a_null_value_takes_everything_before_it(log: Log) -> None:
    past = [log.fact("Ann"), log.fact("Bo", revision=5)]
    gone = decode(log.record(None, key=b"default/Acme/boss"), EventLimits(), NOW)
    assert gone.flags == (WITHDRAW_ALL,)
    assert targets(*past, gone) == set()
    assert targets(*past, gone, log.fact("Cy")) == {"Cy"}


def test_a_set_keeps_all_members(log: Log) -> None:
    many = [log.fact(name, cardinality="many") for name in ("Ann", "Bo", "Ann")]
    assert targets(*many) == {"Ann", "Bo"}
    assert targets(*many, log.retract(target="ann")) == {"Bo"}
    assert targets(*many, log.retract()) == set()
    assert targets(*many, log.fact("Cy")) == {"Cy"}
    assert targets(log.fact("Cy"), *(log.fact(name, cardinality="many") for name in "AB")) == {"A", "B"}


def test_validity_is_resolved_at_the_time_of_the_question(log: Log) -> None:
    old = log.fact("Ann", id="a", valid_from="2020-01-01", valid_until="2022-01-01")
    new = log.fact("Bo", id="b", valid_from="2023-01-01")
    day = {year: 1000 * 86_400 * (365 * (year - 1970) + (year - 1969) // 4) for year in range(2019, 2031)}
    seen = {year: targets(old, new, at=when, as_of=True) for year, when in day.items()}
    assert seen[2019] == set()
    assert seen[2020] == seen[2021] == {"Ann"}
    assert seen[2022] == set()
    assert seen[2023] == seen[2030] == {"Bo"}
    assert why_not(fold([old, new]), "a", NOW).reason == "expired"
    assert why_not(fold([old, new]), "b", day[2022]).reason == "scheduled"


def test_the_past_of_undated_facts_is_their_publication(log: Log) -> None:
    history = [log.fact("Ann", at=NOW - 100), log.fact("Bo", at=NOW - 50)]
    assert targets(*history, at=NOW - 75, as_of=True) == {"Ann"}
    assert targets(*history, at=NOW - 150, as_of=True) == set()
    ahead = log.fact("Cy", at=NOW + 10_000)
    assert targets(*history, ahead) == {"Cy"}  # a clock that runs ahead does not hide a fact from the present


def test_a_scheduled_fact_waits_under_the_current_one(log: Log) -> None:
    soon = log.fact("Bo", valid_from="2030-01-01")
    assert targets(log.fact("Ann"), soon) == {"Ann"}
    assert targets(log.fact("Ann"), soon, at=1_900_000_000_000) == {"Bo"}
    assert targets(log.fact("Ann"), soon, log.retract()) == set()


def test_why_not(log: Log) -> None:
    history = [log.fact("Ann", id="a"), log.fact("Bo", id="b"), log.fact("Cy", id="c"), log.retract(id="c")]
    state = fold(history)
    reasons = {
        name: (why_not(state, name, NOW).reason, why_not(state, name, NOW).winner_id) for name in "abc"
    }
    assert reasons == {"a": ("superseded", "b"), "b": ("current", None), "c": ("retracted", "retract:c")}
    assert why_not(state, "retract:c", NOW).reason == "retraction"
    with pytest.raises(NotFound):
        why_not(state, "x", NOW)


@pytest.mark.parametrize("revisions", [False, True], ids=["by time", "by revision"])
def test_a_fold_of_many_retractions_looks_at_each_member_a_few_times(
    log: Log, revisions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An assertion and its retraction, 2,000 times: not each retraction over all that stands."""
    looks = 0
    holds = policy._holds

    def counted(*arguments: Any, **named: Any) -> bool:
        nonlocal looks
        looks += 1
        return holds(*arguments, **named)

    monkeypatch.setattr(policy, "_holds", counted)
    history = []
    for number in range(2000):
        fields = {"revision": number} if revisions else {}
        history += [log.fact(f"Ann {number}", **fields), log.retract(**fields)]
    assert fold(history).members == ()
    assert looks < 3 * len(history)
