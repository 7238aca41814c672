from __future__ import annotations

import itertools

import pytest

from daemon.lifecycle import Conditions, Lifecycle, LifecycleStatus, State, derive


def test_start_catch_up_ready() -> None:
    lifecycle = Lifecycle()
    assert (lifecycle.state, lifecycle.serving()) == (State.STARTING, False)
    lifecycle.set_catching_up()
    assert (lifecycle.state, lifecycle.serving()) == (State.CATCHING_UP, False)
    lifecycle.set_caught_up()
    assert (lifecycle.state, lifecycle.serving()) == (State.READY, True)


def test_a_gap_stops_ingest_and_keeps_answers_until_it_is_accepted() -> None:
    lifecycle = Lifecycle()
    lifecycle.set_caught_up()
    lifecycle.set_gap("gap: trimmed", servable=True)
    assert (lifecycle.state, lifecycle.serving()) == (State.GAP, True)
    assert lifecycle.reasons == ("gap: trimmed",)
    lifecycle.clear_gap()
    assert lifecycle.state is State.DEGRADED  # not caught up again yet, and serving what it has
    lifecycle.set_caught_up()
    assert lifecycle.state is State.READY


def test_a_gap_before_any_state_serves_nothing() -> None:
    lifecycle = Lifecycle()
    lifecycle.set_catching_up()
    lifecycle.set_gap("gap: trimmed", servable=False)
    assert (lifecycle.state, lifecycle.serving()) == (State.GAP, False)
    lifecycle.clear_gap()
    assert lifecycle.state is State.CATCHING_UP


def test_conditions_come_and_go_in_any_order() -> None:
    lifecycle = Lifecycle()
    lifecycle.set_caught_up()
    lifecycle.set_degraded("publisher", "many bad records")
    lifecycle.set_suspended("quarantine_full")
    assert lifecycle.state is State.SUSPENDED
    assert lifecycle.reasons == ("quarantine_full", "many bad records")
    lifecycle.clear_suspended()
    assert lifecycle.state is State.DEGRADED
    lifecycle.set_degraded("publisher", "more bad records")
    assert lifecycle.reasons == ("more bad records",)
    lifecycle.clear_degraded("publisher")
    assert lifecycle.state is State.READY


def test_an_old_state_is_served_without_brokers_and_never_called_ready() -> None:
    lifecycle = Lifecycle()
    lifecycle.set_servable("no broker has answered")
    assert (lifecycle.state, lifecycle.serving()) == (State.DEGRADED, True)
    lifecycle.set_catching_up()
    assert lifecycle.state is State.DEGRADED
    lifecycle.set_caught_up()
    assert (lifecycle.state, lifecycle.reasons) == (State.READY, ())


def test_stopping_is_final() -> None:
    lifecycle = Lifecycle()
    lifecycle.set_caught_up()
    lifecycle.set_stopping()
    lifecycle.set_caught_up()
    assert (lifecycle.state, lifecycle.serving()) == (State.STOPPING, False)


@pytest.mark.parametrize(("heard", "now", "stale"), [(None, 5.0, True), (0.0, 9.9, False), (0.0, 10.1, True)])
def test_stale_is_silence_of_the_brokers(heard: float | None, now: float, stale: bool) -> None:
    lifecycle = Lifecycle(stale_after_s=10.0, monotonic=lambda: now)
    lifecycle.watch(lambda: heard)
    assert lifecycle.stale is stale
    assert lifecycle.status().stale is stale


def test_callbacks_hear_each_change_once() -> None:
    now = [0.0]
    lifecycle = Lifecycle(monotonic=lambda: now[0])
    lifecycle.watch(lambda: 0.0)
    lifecycle.tick()
    heard: list[LifecycleStatus] = []
    lifecycle.on_change(heard.append)
    lifecycle.set_caught_up()
    lifecycle.set_caught_up()
    now[0] = 11.0
    lifecycle.tick()
    lifecycle.tick()
    assert [(status.state, status.stale) for status in heard] == [(State.READY, False), (State.READY, True)]


def test_never_ready_unless_caught_up_and_free_of_trouble() -> None:
    booleans = (True, False)
    for connected, caught_up, servable, stopping, gap, suspended, degraded in itertools.product(
        booleans, booleans, booleans, booleans, ("", "g"), ("", "s"), ((), (("n", "r"),))
    ):
        conditions = Conditions(connected, caught_up, servable, stopping, gap, suspended, degraded)
        if derive(conditions) is State.READY:
            assert caught_up
            assert not any((stopping, gap, suspended, degraded))
