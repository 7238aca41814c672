"""The last readings of each name: pooled by time, bounded, kept."""

from __future__ import annotations

from lte_runtime.drift import readings as r
from lte_runtime.drift.past import MOST_PAST, PastReadings, from_json, to_json
from lte_runtime.drift.readings import Reading


def test_readings_of_one_time_are_one() -> None:
    past = PastReadings().step([Reading(r.ALIAS, 1.0, 16, 5), Reading(r.ALIAS, 0.5, 48, 5)])
    assert past.last(1) == (Reading(r.ALIAS, 0.625, 64, 5),)
    past = past.step([Reading(r.ALIAS, 0.25, 16, 9)])
    assert [reading.value for reading in past.last(2)] == [0.625, 0.25]


def test_a_reading_of_nothing_is_not_kept() -> None:
    assert PastReadings().step([Reading(r.ALIAS, 0.0, 0, 5)]) == PastReadings()


def test_the_last_of_each_name_are_kept() -> None:
    past = PastReadings()
    for time_ms in range(MOST_PAST + 5):
        past = past.step([Reading(r.ALIAS, time_ms, 1, time_ms), Reading(r.CHOICE, 1.0, 1, time_ms)])
    assert len(past.last(2 * MOST_PAST)) == 2 * MOST_PAST
    assert past.last(MOST_PAST)[0].time_ms == 5
    assert [reading.time_ms for reading in past.last(1)] == [MOST_PAST + 4] * 2
    assert past.last(0) == ()


def test_json_gives_them_back_without_names_of_another_version() -> None:
    past = PastReadings().step([Reading(r.ALIAS, 0.5, 16, 5)])
    assert from_json({**to_json(past), "of_before": [[1.0, 1, 5]]}) == past
