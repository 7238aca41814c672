"""Fixtures that more than one folder uses: the development broker, topics on it, and a converted SmolLM2."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from real_parts import missing_part

from ops.kafka.broker import Broker, BrokerUnavailable

if TYPE_CHECKING:
    from kafka_topic import KafkaTopic
    from vllm_server import Subject

# Read by torch and OpenBLAS when they are imported. The models of the tests are tiny: with a thread for each
# core their trainings take two to ten times the processor time, most of it waiting for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _same_umask() -> Iterator[None]:
    """Commands called in this process set the umask of a daemon; the next test has its own again."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


def started_broker(directory: Path) -> Broker:
    """A running broker, or the test ends with what is missing."""
    broker = Broker(directory)
    try:
        broker.start()
    except BrokerUnavailable as error:
        missing_part(str(error))
    return broker


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for the whole run; tests that stop or kill it take `own_broker`."""
    running = started_broker(tmp_path_factory.mktemp("broker"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that the tests of a module may stop, pause and kill; they leave it running."""
    running = started_broker(tmp_path_factory.mktemp("own-broker"))
    yield running
    running.stop()


@pytest.fixture
def make_topic(broker: Broker) -> Iterator[Callable[..., KafkaTopic]]:
    """Topics on the shared broker: `make_topic(partitions=3, **configs)`."""
    from kafka_topic import KafkaTopic

    made: list[KafkaTopic] = []

    def make(partitions: int = 3, **configs: str) -> KafkaTopic:
        made.append(KafkaTopic(broker.bootstrap, partitions, **configs))
        return made[-1]

    yield make
    for topic in made:
        topic.close()


@pytest.fixture(scope="session")
def vllm_subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """A vLLM server (or its stand-in) for the whole run; tests that kill it start it again."""
    from vllm_server import Subject

    subject = Subject(tmp_path_factory.mktemp("vllm"))
    subject.server.start()
    yield subject
    subject.server.kill()


@pytest.fixture(scope="session")
def smollm2_cache() -> Path:
    """The default model cache with SmolLM2 in it, converted once on a machine (half a minute, 1.4 GB).

    `XDG_CACHE_HOME` moves it, for the daemons of the tests too.
    """
    from lte_runtime.errors import Refused
    from lte_runtime.models.cache import default_directory
    from lte_runtime.models.resolve import converted

    try:
        converted("smollm2")
    except Refused as error:
        missing_part(str(error))
    return default_directory()
