from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vllm_stand_in import StandIn

from lte_runtime.answer.engine.hf import HfEngine
from tests.unit.answer.engine import tiny


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def adapter_dir(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    return tiny.save_adapter(tmp_path_factory.mktemp("adapter"), model_dir)


@pytest.fixture
def stand_in(model_dir: Path) -> Iterator[StandIn]:
    """A vLLM server of the tiny model, started."""
    server = StandIn(model_dir)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def load(model_dir: Path, adapter_dir: Path) -> Iterator[Callable[..., HfEngine]]:
    """Loads an engine over the tiny model; all of them are closed at the end."""
    engines: list[HfEngine] = []

    def make(**settings: object) -> HfEngine:
        options = {"device": "cpu", "dtype": "float32", "threads": 1, "adapter_dir": adapter_dir, **settings}
        engines.append(HfEngine.load(model_dir, **options))  # type: ignore[arg-type]
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()
