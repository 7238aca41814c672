"""The daemon and its engine over a vLLM server: the real one under `make test-vllm`, else the stand-in.

Ten swaps under four streams, a server that is killed in a swap and in a stream, and three cases end to end.
With `LTE_LONG=1` fifty swaps under eight streams.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_house import House, fact, question, until
from vllm_server import ENVIRONMENT, Subject

from lte_runtime.answer.engine.files import CONFIG, MANIFEST, WEIGHTS
from lte_runtime.answer.engine.vllm.engine import VllmEngine
from lte_runtime.errors import Refused, Retry
from lte_runtime.types import GenerateRequest, Generation

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(1800)]

SWAPS, STREAMS = (50, 8) if os.environ.get("LTE_LONG") == "1" else (10, 4)
NEW = 8
PEOPLE = ("Ines Calder", "Tobias Quist", "Ruth Ferreyra", "Olu Sand")
PLACES = ("the observatory", "Port Arlen", "the kettle works", "the moon base")
LOUDER = 25.0
LEAST_ALIKE = 0.9
"""Share of answers under load that are, token for token, those without load: rows that are computed together
round in another way, and near ties fall the other way (docs/decisions/018-vllm.md)."""


@pytest.fixture(scope="module")
def subject(vllm_subject: Subject) -> Subject:
    return vllm_subject


@pytest.fixture
def engine(subject: Subject) -> Iterator[VllmEngine]:
    engine = VllmEngine.load(subject.model, subject.adapter, urls=[subject.server.url], max_batch=STREAMS)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def louder(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its adapter with other weights: what is mixed of the two shows in the tokens."""
    folder = tmp_path_factory.mktemp("louder") / "align-000002"
    return with_alpha(subject.adapter, folder, LOUDER)


def with_alpha(adapter: Path, folder: Path, times: float) -> Path:
    shutil.copytree(adapter, folder)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "lora_alpha": config["lora_alpha"] * times}))
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (CONFIG, WEIGHTS)}
    manifest = json.loads((folder / MANIFEST).read_text())
    about = {**manifest, "id": folder.name, "files": files, "greedy_answers": {}}
    (folder / MANIFEST).write_text(json.dumps(about))
    return folder


def prompts(engine: VllmEngine) -> list[tuple[int, ...]]:
    pairs = list(zip(PEOPLE, PLACES, strict=True))
    texts = [f"The head of {place} is {person}.\nWho is the head of {place}?" for person, place in pairs]
    texts += [f"Who is the head of {place}?\nThe head of {place} is {person}." for person, place in pairs]
    return [engine.prompt(text).token_ids for text in texts]


def request(prompt: tuple[int, ...], adapter: bool = True, new: int = NEW, **wishes: Any) -> GenerateRequest:
    return GenerateRequest(prompt, adapter, new, **wishes)


def test_swaps_under_streams_mix_and_drop_nothing(subject: Subject, engine: VllmEngine, louder: Path) -> None:
    asked = prompts(engine)[:STREAMS]
    folders = {"align-000001": subject.adapter, "align-000002": louder}
    engine.load_adapter(louder)
    alone = {
        (name, stream): engine.generate(request(prompt, bool(name), adapter_id=name or None)).token_ids
        for name in ("", *folders)
        for stream, prompt in enumerate(asked)
    }
    over, answers, faults = threading.Event(), list[tuple[int, Generation]](), list[BaseException]()

    def stream(number: int) -> None:
        try:
            while not over.is_set():
                for adapter in (True, False):
                    answers.append((number, engine.generate(request(asked[number], adapter))))
        except BaseException as error:  # noqa: BLE001 - told to the test
            faults.append(error)

    threads = [threading.Thread(target=stream, args=(number,)) for number in range(STREAMS)]
    for thread in threads:
        thread.start()
    for turn in range(SWAPS):
        before, name = engine.adapter, list(folders)[1 - turn % 2]
        if name not in {ref.id for ref in engine.adapters}:
            engine.load_adapter(folders[name])
        engine.switch(name)
        assert before is not None
        engine.unload(before.id)
    over.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(answers) >= STREAMS
    alike = 0
    for number, answer in answers:
        name = answer.adapter.id if answer.adapter else ""
        same = {other for other in ("", *folders) if answer.token_ids == alone[other, number]}
        assert not same or name in same, f"an answer of {name or 'the base'} is that of {same}"
        alike += name in same
    print(f"{alike} of {len(answers)} answers under swaps are, token for token, those without load")
    assert alike >= LEAST_ALIKE * len(answers)


def test_an_adapter_for_another_model_or_path_is_refused_with_what_the_server_says(
    engine: VllmEngine, louder: Path, tmp_path: Path
) -> None:
    hidden = Path(shutil.copytree(louder, tmp_path / "align-000003"))
    manifest = json.loads((hidden / MANIFEST).read_text())
    (hidden / MANIFEST).write_text(json.dumps({**manifest, "id": "align-000003"}))
    adapter = engine._checked(hidden)
    shutil.rmtree(hidden)
    with pytest.raises(Refused, match="the server must see"):
        engine._rows.start(engine._pool.load(adapter)).result()
    assert engine.faults == ()


def test_a_server_that_is_killed_in_a_stream_fails_it_at_once_and_comes_back(
    subject: Subject, engine: VllmEngine
) -> None:
    prompt = prompts(engine)[0]
    expected = engine.generate(request(prompt)).token_ids
    begun = threading.Event()
    started = time.monotonic()
    futures = [
        engine.submit(
            request(
                prompt, False, 400, deadline=started + 60, several_lines=True, on_text=lambda _: begun.set()
            )
        )
        for _ in range(STREAMS)
    ]
    assert begun.wait(60)
    subject.server.kill()
    killed = time.monotonic()
    errors = [future.exception(60) for future in futures]
    assert any(errors)
    assert all(error is None or isinstance(error, Retry) for error in errors)
    assert time.monotonic() - killed < 10
    assert "does not answer" in engine.faults[0]
    with pytest.raises(Retry, match="no vLLM server can answer"):
        engine.generate(request(prompt, deadline=time.monotonic() + 60))
    subject.server.start()
    until(lambda: not engine.faults, "the server is taken back")
    assert engine.generate(request(prompt)).token_ids == expected


def test_a_server_that_is_killed_in_a_swap_leaves_the_old_adapter(
    subject: Subject, engine: VllmEngine, louder: Path
) -> None:
    prompt = prompts(engine)[0]
    expected = engine.generate(request(prompt)).token_ids
    failed = list[BaseException]()

    def swap() -> None:
        try:
            while True:
                engine.load_adapter(louder)
                engine.unload("align-000002")
        except (Refused, Retry) as error:
            failed.append(error)

    swapping = threading.Thread(target=swap)
    swapping.start()
    time.sleep(0.3)
    subject.server.kill()
    swapping.join(60)
    assert failed
    assert [ref.id for ref in engine.adapters] == ["align-000001"]
    subject.server.start()
    until(lambda: not engine.faults, "the server is taken back")
    assert engine.generate(request(prompt)).token_ids == expected
    engine.load_adapter(louder)
    engine.switch("align-000002")
    assert engine.generate(request(prompt)).adapter == engine.adapter


@pytest.mark.kafka
def test_three_cases_end_to_end(subject: Subject, make_house: Callable[..., House]) -> None:
    """A fact is answered with the adapter, other questions by the base, also once it is withdrawn."""
    settings = {
        "LTE_MODEL__PATH": str(subject.model),
        "LTE_MODEL__ADAPTER": str(subject.adapter),
        "LTE_MODEL__ENGINE": "vllm",
        "LTE_MODEL__URL": subject.server.url,
    }
    house = make_house(**settings).start()
    base = house.ask(question("Port Arlen"))
    assert (base["scope"], base["adapter"]) == ("base", None)
    assert base["runtime"].startswith("vllm/")
    at = house.publish([{**fact("Port Arlen", "Ines Calder"), "id": "harbour"}])
    edited = house.ask(question("Port Arlen"), at)
    assert (edited["scope"], edited["adapter"]["id"]) == ("edited", "align-000001")
    assert "Ines Calder" in edited["text"]
    other = house.ask("What is the capital of Kenya?", at)
    assert (other["scope"], other["adapter"]) == ("base", None)
    gone = house.publish([{"op": "retract", "subject": "Port Arlen", "relation": "owner"}])
    again = house.ask(question("Port Arlen"), gone)
    assert (again["scope"], again["token_ids"]) == ("base", base["token_ids"])

    subject.server.kill()
    until(lambda: house.status()["state"] == "DEGRADED", "the loss of the server is told")
    assert "does not answer" in " ".join(house.status()["reasons"])
    started = time.monotonic()
    with pytest.raises(Retry):
        house.ask("What is the capital of Kenya?")
    assert time.monotonic() - started < 30
    later = house.publish([{**fact("Port Arlen", "Tobias Quist"), "id": "later"}])
    subject.server.start()
    until(lambda: house.status()["state"] == "READY", "the server is taken back")
    assert "Tobias Quist" in house.ask(question("Port Arlen"), later)["text"]


@pytest.mark.skipif(not ENVIRONMENT, reason="what vLLM loads is for vLLM to say: make test-vllm")
@pytest.mark.parametrize(
    ("rank", "kind"), [(8, "BF16"), (16, "F16"), (32, "BF16"), (64, "BF16"), (64, "F16")]
)
def test_what_alignment_writes_is_loaded(
    subject: Subject, engine: VllmEngine, tmp_path: Path, rank: int, kind: str
) -> None:
    """By the code of `lte align train`, which writes bf16; in fp16 as other trainers do."""
    folder = aligned(subject, tmp_path / "align-000009", rank, kind)
    engine.load_adapter(folder)
    engine.switch("align-000009")
    prompt = prompts(engine)[0]
    edited, base = (engine.generate(request(prompt, adapter)).token_ids for adapter in (True, False))
    assert edited != base


def aligned(subject: Subject, folder: Path, rank: int, kind: str) -> Path:
    """A fresh adapter whose halves are random, saved as alignment saves it."""
    import torch
    from safetensors.torch import load_file, save_file

    from lte_runtime.align.job import train
    from lte_runtime.align.settings import TrainingSettings
    from lte_runtime.answer.engine.files import base_fingerprint
    from lte_runtime.answer.engine.hf import _load_weights
    from tests.unit.answer.engine.tiny import write_manifest

    adapted = train.with_adapter(
        _load_weights(subject.model, torch.float32), TrainingSettings(rank=rank, alpha=2 * rank)
    )
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.05)
    train.save(adapted, folder)
    if kind == "F16":
        state = {name: value.half() for name, value in load_file(folder / WEIGHTS).items()}
        save_file(state, folder / WEIGHTS)
    write_manifest(folder, base_fingerprint(subject.model), id=folder.name)
    return folder
