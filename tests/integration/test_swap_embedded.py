"""Swaps on a small real model under concurrent answers, each held against what its adapter says alone.

A dozen swaps under six streams; with `LTE_LONG=1` fifty under sixteen.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from real_parts import QWEN2, QWEN2_ADAPTER

from daemon.adapters.swap import Configured, Swapper
from daemon.parts import models
from daemon.settings import Settings
from lte_runtime.align.registry import Registry
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.engine.files import CONFIG, MANIFEST, WEIGHTS
from lte_runtime.answer.engine.protocol import AdapterEngine
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.types import GenerateRequest, Generation

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(1800)]

SWAPS, STREAMS = (50, 16) if os.environ.get("LTE_LONG") == "1" else (12, 6)
NEW = 8
# Its adapter made louder says other things: what is mixed of two shows in its tokens.
LOUDER = (25.0, 80.0)
PEOPLE = (
    "Ines Calder,Tobias Quist,Ruth Ferreyra,Olu Sand,Marguerite Vale,Henrik Osprey,Noor Winter,Pavel Dune"
)
PLACES = (
    "the observatory,Port Arlen,the Quill editor 3.2,São Tomé,a kettle works,the moon base,SKU-4711,Zürich"
)


@dataclass
class House:
    """The model with its adapters, and the swap door."""

    directory: Path
    prompts: list[tuple[int, ...]] = field(default_factory=list)
    made: list[tuple[int, Generation]] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.memory = EditMemory.open(self.directory / "state", StubEncoder())
        model = {"path": str(QWEN2), "adapter": str(QWEN2_ADAPTER), "threads": 1, "dtype": "float32"}
        settings = Settings.model_validate({"model": model})
        self.engine: AdapterEngine = models.engine(settings)
        self.registry = Registry(self.directory / "adapters", self.engine.check_adapter)
        shipped = self.engine.check_adapter(QWEN2_ADAPTER)
        configured = Configured(shipped, QWEN2_ADAPTER)
        self.swapper = Swapper(self.engine, self.registry, self.memory.adapters, configured)
        pairs = zip(PEOPLE.split(","), PLACES.split(","), strict=True)
        told = [
            (f"The head of {place} is {person}.", f"Who is the head of {place}?") for person, place in pairs
        ]
        texts = [f"{fact}\n{asked}" for fact, asked in told] + [f"{asked}\n{fact}" for fact, asked in told]
        self.prompts = [self.engine.prompt(text).token_ids for text in texts]

    def ask(self, stream: int) -> Generation:
        return self.engine.generate(GenerateRequest(self.prompts[stream], True, NEW))

    def stream(self, number: int, over: threading.Event) -> None:
        try:
            while not over.is_set():
                self.made.append((number, self.ask(number)))
        except BaseException as error:  # noqa: BLE001 - told to the test
            self.faults.append(error)

    def alone(self) -> dict[tuple[str, int], tuple[int, ...]]:
        """What each adapter says to each prompt when nobody else asks."""
        found = {}
        for name in NAMES:
            self.swapper.activate(name, "alone")
            for stream in range(STREAMS):
                found[name, stream] = self.ask(stream).token_ids
        return found


NAMES = ("configured", "align-000002", "align-000003")


def louder(place: Path, number: int, times: float) -> Path:
    shutil.copytree(QWEN2_ADAPTER, place)
    config = json.loads((place / CONFIG).read_text())
    (place / CONFIG).write_text(json.dumps({**config, "lora_alpha": config["lora_alpha"] * times}))
    files = {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in (CONFIG, WEIGHTS)}
    manifest = json.loads((place / MANIFEST).read_text())
    (place / MANIFEST).write_text(json.dumps({**manifest, "id": f"align-{number:06d}", "files": files}))
    return place


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    made.swapper.start()
    for number, times in enumerate(LOUDER, 2):
        made.registry.add(louder(tmp_path / f"made-{number}", number, times), {})
    yield made
    made.engine.close()
    made.memory.close()


def test_swaps_under_streams_mix_and_drop_nothing(house: House) -> None:
    alone = house.alone()
    differing = sum(alone[NAMES[0], n] != alone[NAMES[1], n] != alone[NAMES[2], n] for n in range(STREAMS))
    assert differing > STREAMS / 2, "else a mixed answer would not show"
    over = threading.Event()
    threads = [threading.Thread(target=house.stream, args=(number, over)) for number in range(STREAMS)]
    for thread in threads:
        thread.start()
    try:
        for number in range(SWAPS):
            house.swapper.activate(NAMES[number % len(NAMES)], "trial")
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert house.faults == []
    shipped = house.engine.check_adapter(QWEN2_ADAPTER).id
    served = {name: sum(of(each) == name for _, each in house.made) for name in (shipped, *NAMES[1:])}
    assert all(count > 0 for count in served.values()), served
    wrong = [
        (stream, of(each), each.token_ids, {name: alone[name, stream] for name in NAMES})
        for stream, each in house.made
        if each.token_ids != alone[NAMES[0] if of(each) == shipped else of(each), stream]
    ]
    assert wrong == []


def of(made: Generation) -> str:
    return made.adapter.id if made.adapter else "none"
