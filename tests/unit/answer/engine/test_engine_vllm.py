"""The engine over vLLM servers when they are lost, restarted, slow or serve something else."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vllm_stand_in import StandIn

from lte_runtime.answer.engine.hf import HfEngine
from lte_runtime.answer.engine.vllm import pool
from lte_runtime.answer.engine.vllm.engine import VllmEngine
from lte_runtime.answer.engine.vllm.greedy_answers import (
    ADAPTER,
    BASE,
    KEY,
    GreedyAnswer,
    agreement,
    recorded,
)
from lte_runtime.errors import BadRequest, Damaged, Refused, Retry
from lte_runtime.types import GenerateRequest, Generation
from tests.unit.answer.engine import tiny

PROMPT = (5, 17, 99, 230, 41)
WAIT_S = 30.0


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LOOK_S", 0.1)
    monkeypatch.setattr(pool, "LONGEST_WAIT_S", 0.2)


@pytest.fixture
def servers(model_dir: Path) -> Iterator[Callable[..., StandIn]]:
    """Starts further servers of the tiny model, or of another one."""
    started: list[StandIn] = []

    def start(directory: Path = model_dir, **options: Any) -> StandIn:
        started.append(StandIn(directory, **options))
        started[-1].start()
        return started[-1]

    yield start
    for server in started:
        server.stuck.clear()
        server.kill()


@pytest.fixture
def engine_on(model_dir: Path) -> Iterator[Callable[..., VllmEngine]]:
    engines: list[VllmEngine] = []

    def load(*on: StandIn, adapter: Path | None = None, **settings: Any) -> VllmEngine:
        engines.append(VllmEngine.load(model_dir, adapter, urls=[server.url for server in on], **settings))
        return engines[-1]

    yield load
    for engine in engines:
        engine.close()


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> dict[str, Path]:
    """Two sound adapters by their names."""
    folders = {}
    for number in (1, 2):
        name = f"align-{number:06d}"
        folders[name] = tiny.save_adapter(tmp_path_factory.mktemp("a") / name, model_dir, seed=number)
        annotate(folders[name], id=name)
    return folders


@pytest.fixture(scope="module")
def expected(model_dir: Path, adapters: dict[str, Path]) -> dict[str, tuple[int, ...]]:
    """Tokens of the base (under the empty name) and of each adapter, by transformers."""
    local = HfEngine.load(model_dir, device="cpu", dtype="float32", adapter_mode="unmerged", threads=1)
    tokens = {"": ask(local, adapter=False).token_ids}
    for name, folder in adapters.items():
        local.load_adapter(folder)
        tokens[name] = ask(local, adapter_id=name).token_ids
    local.close()
    assert len(set(tokens.values())) == 3
    return tokens


def annotate(adapter: Path, **entries: Any) -> None:
    path = adapter / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def request(adapter: bool = True, limit: int = 24, **wishes: Any) -> GenerateRequest:
    return GenerateRequest(PROMPT, adapter=adapter, max_new_tokens=limit, **wishes)


def ask(engine: Any, adapter: bool = True, **wishes: Any) -> Generation:
    generation: Generation = engine.generate(request(adapter, **wishes))
    return generation


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


# -- what is answered --------------------------------------------------------------------------------


def test_answers_are_those_of_transformers_token_for_token(
    stand_in: StandIn,
    engine_on: Callable[..., VllmEngine],
    adapters: dict[str, Path],
    expected: dict[str, tuple[int, ...]],
) -> None:
    engine = engine_on(stand_in, adapter=adapters["align-000001"])
    engine.load_adapter(adapters["align-000002"])
    futures = {
        (name, number): engine.submit(request(bool(name), adapter_id=name or None))
        for name in expected
        for number in range(8)
    }
    for (name, _), future in futures.items():
        assert future.result(WAIT_S).token_ids == expected[name]


def test_a_prompt_beyond_the_servers_context_is_a_bad_request(
    stand_in: StandIn, engine_on: Callable[..., VllmEngine]
) -> None:
    with pytest.raises(BadRequest, match="context of 256"):
        engine_on(stand_in).submit(GenerateRequest((1,) * 256, False, 1))


def test_names_are_never_used_twice(
    stand_in: StandIn, engine_on: Callable[..., VllmEngine], adapters: dict[str, Path]
) -> None:
    engine = engine_on(stand_in, adapter=adapters["align-000001"])
    for _ in range(3):
        for name in ("align-000002", "align-000001"):
            before = engine.adapter
            engine.load_adapter(adapters[name])
            engine.switch(name)
            assert before is not None
            engine.unload(before.id)
            until(lambda: len(stand_in.adapters) == 1)
    assert len(stand_in.loads) == len(set(stand_in.loads)) == 7


def test_an_adapter_is_unloaded_when_its_last_answer_has_ended(
    servers: Callable[..., StandIn],
    engine_on: Callable[..., VllmEngine],
    adapters: dict[str, Path],
    expected: dict[str, tuple[int, ...]],
) -> None:
    server = servers(token_s=0.02)
    engine = engine_on(server, adapter=adapters["align-000001"])
    begun = threading.Event()
    under_way = engine.submit(request(on_text=lambda _: begun.set()))
    assert begun.wait(WAIT_S)
    engine.load_adapter(adapters["align-000002"])
    engine.switch("align-000002")
    engine.unload("align-000001")
    assert not under_way.done()
    assert len(server.adapters) == 2
    assert under_way.result(WAIT_S).token_ids == expected["align-000001"]
    until(lambda: len(server.adapters) == 1)
    assert ask(engine).token_ids == expected["align-000002"]


def test_the_end_unloads_what_was_loaded(
    stand_in: StandIn, engine_on: Callable[..., VllmEngine], adapters: dict[str, Path]
) -> None:
    neighbour = engine_on(stand_in, adapter=adapters["align-000002"])
    engine_on(stand_in, adapter=adapters["align-000001"]).close()
    assert len(stand_in.adapters) == 1
    assert ask(neighbour).adapter == neighbour.adapter


# -- a server is lost --------------------------------------------------------------------------------


def test_a_lost_server_fails_questions_at_once_and_is_taken_back(
    stand_in: StandIn,
    engine_on: Callable[..., VllmEngine],
    adapters: dict[str, Path],
    expected: dict[str, tuple[int, ...]],
) -> None:
    engine = engine_on(stand_in, adapter=adapters["align-000001"])
    assert engine.faults == ()
    stand_in.kill()
    started = time.monotonic()
    for adapter in (True, False):
        with pytest.raises(Retry, match="no vLLM server can answer"):
            ask(engine, adapter, deadline=started + WAIT_S)
    assert time.monotonic() - started < 5
    assert "does not answer" in engine.faults[0]
    stand_in.start()
    until(lambda: not engine.faults)
    assert ask(engine).token_ids == expected["align-000001"]
    assert ask(engine, False).token_ids == expected[""]


def test_a_restart_between_two_looks_is_noticed_before_an_edited_answer(
    stand_in: StandIn,
    engine_on: Callable[..., VllmEngine],
    adapters: dict[str, Path],
    expected: dict[str, tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "LOOK_S", 60.0)
    engine = engine_on(stand_in, adapter=adapters["align-000001"])
    stand_in.kill()
    stand_in.start()
    assert ask(engine).token_ids == expected["align-000001"]
    assert len(stand_in.loads) == 2
    assert engine.faults == ()


def test_an_answer_goes_on_elsewhere_behind_its_last_token(
    servers: Callable[..., StandIn],
    engine_on: Callable[..., VllmEngine],
    adapters: dict[str, Path],
    expected: dict[str, tuple[int, ...]],
) -> None:
    one, two = servers(token_s=0.02), servers(token_s=0.02)
    engine = engine_on(one, two, adapter=adapters["align-000001"])
    until(lambda: not engine.faults)
    pieces: list[list[str]] = [[] for _ in range(8)]
    futures = [engine.submit(request(on_text=texts.append)) for texts in pieces]
    until(lambda: all(pieces))
    one.kill()
    for texts, future in zip(pieces, futures, strict=True):
        generation = future.result(WAIT_S)
        assert generation.token_ids == expected["align-000001"]
        assert "".join(texts) == generation.text
    assert "does not answer" in engine.faults[0]


def test_a_server_that_hangs_is_lost_within_seconds(
    servers: Callable[..., StandIn],
    engine_on: Callable[..., VllmEngine],
    adapters: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lte_runtime.answer.engine.vllm.server.CALL_S", 0.5)
    server = servers(token_s=0.02)
    engine = engine_on(server, adapter=adapters["align-000001"])
    begun = threading.Event()
    future = engine.submit(request(on_text=lambda _: begun.set(), limit=200, adapter=False))
    assert begun.wait(WAIT_S)
    server.stuck.set()
    with pytest.raises(Retry):
        future.result(10)
    assert engine.faults
    server.stuck.clear()
    until(lambda: not engine.faults)


def test_deadline_and_cancellation_end_a_row_that_gets_no_token(
    servers: Callable[..., StandIn], engine_on: Callable[..., VllmEngine]
) -> None:
    server = servers()
    engine = engine_on(server, max_batch=1)
    server.stuck.set()
    gone = threading.Event()
    late = engine.submit(request(False, deadline=time.monotonic() + 0.3))
    waiting = engine.submit(request(False, cancelled=gone.is_set))
    gone.set()
    assert waiting.result(5).finish == "cancelled"
    assert late.result(5).finish == "deadline"


# -- several servers ---------------------------------------------------------------------------------


def test_rows_are_spread_over_the_servers(
    servers: Callable[..., StandIn], engine_on: Callable[..., VllmEngine]
) -> None:
    one, two = servers(token_s=0.01), servers(token_s=0.01)
    engine = engine_on(one, two)
    until(lambda: not engine.faults)
    for future in [engine.submit(request(False, limit=4)) for _ in range(12)]:
        future.result(WAIT_S)
    assert min(len(one.asked), len(two.asked)) >= 4


def test_a_swap_counts_only_when_every_server_has_the_adapter(
    servers: Callable[..., StandIn],
    engine_on: Callable[..., VllmEngine],
    adapters: dict[str, Path],
    expected: dict[str, tuple[int, ...]],
) -> None:
    one, two = servers(), servers()
    engine = engine_on(one, two, adapter=adapters["align-000001"])
    until(lambda: not engine.faults)
    two.fail_loads = "out of memory"
    with pytest.raises(Refused, match="out of memory"):
        engine.load_adapter(adapters["align-000002"])
    until(lambda: len(one.adapters) == len(two.adapters) == 1)
    two.kill()
    until(lambda: engine.faults)
    with pytest.raises(Retry, match="a swap needs every vLLM server"):
        engine.load_adapter(adapters["align-000002"])
    two.fail_loads = ""
    two.start()
    until(lambda: not engine.faults)
    engine.load_adapter(adapters["align-000002"])
    engine.switch("align-000002")
    assert all(ask(engine).token_ids == expected["align-000002"] for _ in range(4))
    assert [len(server.adapters) for server in (one, two)] == [2, 2]


# -- what serves -------------------------------------------------------------------------------------


def answers(prompt: tuple[int, ...], *tokens: int) -> list[dict[str, Any]]:
    return [GreedyAnswer(prompt, tokens).to_json()]


@pytest.fixture
def recognisable(expected: dict[str, tuple[int, ...]], tmp_path: Path, model_dir: Path) -> Path:
    """The first adapter with the greedy answers of its alignment."""
    folder = tiny.save_adapter(tmp_path / "known", model_dir, seed=1)
    known = {
        BASE: answers(PROMPT, *expected[""]),
        ADAPTER: answers(PROMPT, *expected["align-000001"]),
    }
    annotate(folder, **{KEY: known})
    return folder


def test_the_recorded_greedy_answers_let_the_right_model_pass(
    stand_in: StandIn, engine_on: Callable[..., VllmEngine], recognisable: Path
) -> None:
    assert engine_on(stand_in, adapter=recognisable).adapter is not None


def test_other_weights_are_recognised_by_their_greedy_answers(
    servers: Callable[..., StandIn],
    engine_on: Callable[..., VllmEngine],
    recognisable: Path,
    tmp_path: Path,
) -> None:
    other = tiny.save_model(tmp_path / "other", seed=7)
    with pytest.raises(Refused, match=r"recorded for the base model .* other weights"):
        engine_on(servers(other), adapter=recognisable)


def test_a_server_that_comes_back_with_other_weights_gets_no_question(
    stand_in: StandIn,
    engine_on: Callable[..., VllmEngine],
    recognisable: Path,
    tmp_path: Path,
    model_dir: Path,
) -> None:
    engine = engine_on(stand_in, adapter=recognisable)
    stand_in.kill()
    stand_in.serve(tiny.save_model(tmp_path / "other", seed=7))
    stand_in.start()
    until(lambda: engine.faults and "other weights" in engine.faults[0])
    for adapter in (True, False):
        with pytest.raises(Retry, match="other weights"):
            ask(engine, adapter)
    stand_in.kill()
    stand_in.serve(model_dir)
    stand_in.start()
    until(lambda: not engine.faults)


def test_servers_of_unlike_models_are_refused_at_the_start(
    servers: Callable[..., StandIn], engine_on: Callable[..., VllmEngine]
) -> None:
    with pytest.raises(Refused, match="serves other, not tiny"):
        engine_on(servers(), servers(base="other"))


def test_what_the_server_says_against_an_adapter_reaches_the_operator(
    servers: Callable[..., StandIn], engine_on: Callable[..., VllmEngine], adapters: dict[str, Path]
) -> None:
    with pytest.raises(Refused, match="LoRA rank 4 is greater than max_lora_rank 2"):
        engine_on(servers(max_rank=2), adapter=adapters["align-000001"])


@pytest.mark.parametrize(
    "wrong",
    [3, {"base": 3}, {"base": [{}]}, {"base": [{"prompt": ["a"], "answer": [1]}]}, {"base": answers(())}],
)
def test_malformed_greedy_answers_are_damage(wrong: object) -> None:
    with pytest.raises(Damaged):
        recorded({KEY: wrong}, BASE)


def test_agreement_counts_tokens_up_to_the_first_other_one() -> None:
    two = [GreedyAnswer((1,), (1, 2, 3, 4)), GreedyAnswer((2,), (5, 6))]
    assert agreement(two, [(1, 2, 9, 4), (5, 6)]) == 0.75
    assert agreement(two, [(), (5, 6, 7)]) == 0.5
    assert recorded({}, BASE) == ()
