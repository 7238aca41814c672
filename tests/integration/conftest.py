"""Fixtures of the tests on the whole daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from daemon_house import House
    from gateway_process import GatewayProcess, Tokens

    from ops.kafka.broker import Broker


def _houses(broker: Broker, factory: pytest.TempPathFactory) -> Iterator[Callable[..., House]]:
    from daemon_house import House

    made: list[House] = []

    def make(*, directory: Any = None, topic: Any = None, **settings: str) -> House:
        made.append(House(broker, directory or factory.mktemp("d"), topic=topic, **settings))
        return made[-1]

    yield make
    for house in reversed(made):
        house.close()


@pytest.fixture
def make_house(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., House]]:
    """Daemons for one test: `make_house(LTE_...="...")`, not yet started."""
    yield from _houses(broker, tmp_path_factory)


@pytest.fixture(scope="module")
def make_module_house(
    broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., House]]:
    """Daemons that the tests of a module share."""
    yield from _houses(broker, tmp_path_factory)


@pytest.fixture(scope="module")
def house(make_module_house: Callable[..., House]) -> House:
    """A running daemon that the tests of a module share; each uses subjects of its own."""
    return make_module_house().start()


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    """An asker and a publisher of one namespace, an operator of all, and one whose token has expired."""
    from gateway_process import make_tokens

    return make_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def guarded_house(make_module_house: Callable[..., House], tokens: Tokens) -> House:
    """A running daemon that knows `tokens`."""
    return make_module_house(LTE_RPC__TOKEN_FILE=str(tokens.file)).start()


@pytest.fixture(scope="module")
def guarded_gateway(
    guarded_house: House, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A running gateway in front of `guarded_house`."""
    from gateway_process import started

    running = started(guarded_house, tmp_path_factory.mktemp("gateway"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def gateway(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A running gateway in front of `house`."""
    from gateway_process import started

    running = started(house, tmp_path_factory.mktemp("gateway"))
    yield running
    running.close()
