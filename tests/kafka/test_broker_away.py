"""The broker may be absent, stopped or killed: answers go on, staleness shows, catching up needs no hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kafka_house import Running, event, until
from kafka_topic import KafkaTopic

from daemon.lifecycle import State
from ops.kafka.broker import Broker

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
Ingesting = Callable[..., Running]


@pytest.fixture
def topic(own_broker: Broker) -> KafkaTopic:
    return KafkaTopic(own_broker.bootstrap, partitions=2)


def test_a_killed_broker_that_comes_back(own_broker: Broker, topic: KafkaTopic, ingesting: Ingesting) -> None:
    topic.append(event("before"))
    running = ingesting(topic, stale_after_s=3.0).ready()
    own_broker.kill()
    until(lambda: running.lifecycle.stale)
    assert (running.state, running.lifecycle.serving()) == (State.READY, True)
    own_broker.start()
    topic.append(event("after"), partition=1)
    until(lambda: running.memory.values() == ["after", "before"])
    until(lambda: not running.lifecycle.stale)
    assert running.state is State.READY
    topic.close()


def test_a_stopped_broker_that_goes_on(own_broker: Broker, topic: KafkaTopic, ingesting: Ingesting) -> None:
    topic.append(event("before"))
    running = ingesting(topic, stale_after_s=3.0).ready()
    own_broker.pause()
    until(lambda: running.lifecycle.stale)
    assert running.lifecycle.serving()
    own_broker.resume()
    topic.append(event("after"))
    until(lambda: running.memory.values() == ["after", "before"])
    until(lambda: not running.lifecycle.stale)
    topic.close()


def test_absent_at_start_an_old_state_is_served_and_an_empty_one_is_not(
    own_broker: Broker, topic: KafkaTopic, ingesting: Ingesting
) -> None:
    from daemon.ingest.ingest import IngestSettings

    topic.append(event("before"))
    first = ingesting(topic).ready()
    first.stop()
    own_broker.stop()
    soon = IngestSettings(refresh_s=1.0, serve_stale_after_s=1.0)
    empty = ingesting(topic, settings=soon)
    old = ingesting(topic, first.memory, settings=soon)
    until(lambda: old.lifecycle.serving())
    assert (old.state, old.lifecycle.stale) == (State.DEGRADED, True)
    assert (empty.state, empty.lifecycle.serving()) == (State.STARTING, False)
    own_broker.start()
    topic.append(event("after"))
    for each in (old, empty):
        until(lambda each=each: each.memory.values() == ["after", "before"])
        assert each.ready().state is State.READY
    assert State.READY not in old.states[: old.states.index(State.DEGRADED)]
    topic.close()
