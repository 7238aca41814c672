"""One suite over the stub and the real engine: what every engine promises."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from vllm_server import ENVIRONMENT

from lte_runtime.answer.engine.hf import HfEngine
from lte_runtime.answer.engine.openvino_engine import OpenVinoEngine
from lte_runtime.answer.engine.protocol import Engine
from lte_runtime.answer.engine.stub import StubEngine
from lte_runtime.answer.engine.vllm.engine import VllmEngine
from lte_runtime.errors import BadRequest, Overloaded, Retry
from lte_runtime.types import GenerateRequest, Generation

HANG_S = 60
PROMPT = tuple(b"Ines Calder\nWho is the harbour master?")
Make = Callable[..., Engine]


@pytest.fixture(params=["stub", "hf", "openvino", "openvino-int8", "vllm"])
def make(request: pytest.FixtureRequest, model_dir: Path, adapter_dir: Path) -> Iterator[Make]:
    engines: list[Engine] = []

    def build(**settings: Any) -> Engine:
        if request.param == "stub":
            engine: Engine = StubEngine(token_s=0.002, **settings)
        elif request.param.startswith("openvino"):
            weights = "int8" if request.param.endswith("int8") else "float32"
            engine = OpenVinoEngine.load(model_dir, adapter_dir, weights=weights, threads=1, **settings)
        elif request.param == "vllm":
            engine = over_vllm(request, model_dir, adapter_dir, settings)
        else:
            engine = HfEngine.load(
                model_dir, adapter_dir, device="cpu", dtype="float32", threads=1, **settings
            )
        engines.append(engine)
        return engine

    yield build
    for engine in engines:
        engine.close()


def over_vllm(
    request: pytest.FixtureRequest, model_dir: Path, adapter_dir: Path, settings: dict[str, Any]
) -> VllmEngine:
    """On the tiny model and the stand-in; under `make test-vllm` on what the real server serves."""
    if not ENVIRONMENT:
        urls = [request.getfixturevalue("stand_in").url]
        return VllmEngine.load(model_dir, adapter_dir, urls=urls, **settings)
    subject = request.getfixturevalue("vllm_subject")
    return VllmEngine.load(subject.model, subject.adapter, urls=[subject.server.url], **settings)


def ask(adapter: bool = False, limit: int = 8, **wishes: object) -> GenerateRequest:
    return GenerateRequest(PROMPT, adapter=adapter, max_new_tokens=limit, **wishes)  # type: ignore[arg-type]


def flood(engine: Engine, count: int, adapter: bool = False) -> list[Future[Generation]]:
    return [engine.submit(ask(adapter)) for _ in range(count)]


def test_answers_are_deterministic_and_name_their_adapter(make: Make) -> None:
    engine = make()
    edited, base = engine.generate(ask(adapter=True)), engine.generate(ask())
    assert edited.adapter == engine.adapter is not None
    assert base.adapter is None
    assert edited.token_ids != base.token_ids
    assert engine.generate(ask(adapter=True)).token_ids == edited.token_ids
    assert engine.generate(ask()).token_ids == base.token_ids


def test_base_rows_do_not_see_their_neighbours(make: Make) -> None:
    engine = make()
    alone = engine.generate(ask()).token_ids
    futures = [engine.submit(ask(adapter=index % 3 > 0)) for index in range(24)]
    for index, future in enumerate(futures):
        if index % 3 == 0:
            assert future.result(HANG_S).token_ids == alone


def test_streamed_text_is_the_answer(make: Make) -> None:
    pieces: list[str] = []
    generation = make().generate(ask(on_text=pieces.append))
    assert "".join(pieces) == generation.text


def test_full_queue_is_refused(make: Make) -> None:
    engine = make(queue_limit=3, max_batch=1)
    futures: list[Future[Generation]] = []

    def overload() -> None:
        for _ in range(1000):
            futures.append(engine.submit(ask()))

    with pytest.raises(Overloaded):
        overload()
    assert all(future.result(HANG_S).finish for future in futures)
    assert engine.stats().refused == 1


def test_deadline_in_the_past_costs_no_tokens(make: Make) -> None:
    generation = make().generate(ask(deadline=time.monotonic()))
    assert (generation.finish, generation.token_ids) == ("deadline", ())


def test_cancellation_between_tokens(make: Make) -> None:
    gone = threading.Event()
    request = ask(limit=200, cancelled=gone.is_set, on_text=lambda _: gone.set())
    generation = make().generate(request)
    assert generation.finish in ("cancelled", "stop")
    assert len(generation.token_ids) < 200


@pytest.mark.parametrize("bad", [GenerateRequest((), False, 5), GenerateRequest((1,), False, 0)])
def test_nothing_to_do_is_a_bad_request(make: Make, bad: GenerateRequest) -> None:
    with pytest.raises(BadRequest):
        make().submit(bad)


def test_close_ends_everything(make: Make) -> None:
    engine = make(max_batch=1)
    futures = flood(engine, 20)
    engine.close()
    for future in futures:
        error = future.exception(HANG_S)
        assert error is None or isinstance(error, Retry)
    with pytest.raises(Retry):
        engine.submit(ask())


def test_stats_count(make: Make) -> None:
    engine = make()
    before = engine.stats()
    for future in flood(engine, 5, adapter=True):
        future.result(HANG_S)
    engine.close()
    after = engine.stats()
    assert after.rows - before.rows == after.requests - before.requests == 5
    assert after.tokens > before.tokens
    assert (after.queue_depth, after.running) == (0, 0)
