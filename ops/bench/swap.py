"""The stall that a swap of adapters costs whoever asks meanwhile, against peft's load, set and delete."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.parts import models
from daemon.settings import Settings
from lte_runtime.answer.engine.files import CONFIG, MANIFEST, WEIGHTS
from lte_runtime.answer.engine.protocol import AdapterEngine
from lte_runtime.errors import Refused
from lte_runtime.types import GenerateRequest, Generation
from ops.bench.result import BenchResult, Spread, machine, percentile, today

BAR = "stall <= 3 ms beyond a normal batch, dropped 0, mixed 0"
NEW = 12
NAMES = ("align-000001", "align-000002")


@dataclass
class Stream:
    """One caller who asks without a pause; `spans` are begin and end of each answer, seconds."""

    engine: AdapterEngine
    prompt: tuple[int, ...]
    spans: list[tuple[float, float]] = field(default_factory=list)
    generations: list[Generation] = field(default_factory=list)
    dropped: int = 0

    def run(self, over: threading.Event) -> None:
        while not over.is_set():
            begin = time.perf_counter()
            try:
                self.generations.append(self.engine.generate(GenerateRequest(self.prompt, True, NEW)))
            except Exception:  # noqa: BLE001 - counted: an answer that failed is what must not happen
                self.dropped += 1
            self.spans.append((begin, time.perf_counter()))


def run(quick: bool, progress: Callable[[str], None], settings: Settings | None = None) -> BenchResult:
    """`ours`: median over swaps of the longest answer that overlaps one, beyond the longest normal answer, in
    milliseconds and at least 0. `peer`: the time for which peft's load, set and delete keep the model busy.
    `mixed`: answers that are not, token by token, what the adapter that they name says alone."""
    swaps, quiet_s = (4, 2.0) if quick else (20, 10.0)
    settings = settings or Settings()
    with tempfile.TemporaryDirectory() as name:
        shipped = _shipped(settings)
        places = [shipped, _softened(shipped, Path(name) / "half")]
        progress("loading the model")
        engine = models.engine(settings)
        stream = Stream(engine, _prompt(engine))
        alone = _alone(engine, stream, places)
        over = threading.Event()
        thread = threading.Thread(target=stream.run, args=(over,))
        thread.start()
        progress("answers without a swap")
        time.sleep(quiet_s)
        normal = [end - begin for begin, end in stream.spans]
        progress(f"{swaps} swaps under answers")
        windows = [_swap(engine, places, number) for number in range(1, swaps + 1)]
        over.set()
        thread.join()
        progress("peft")
        peer = Spread.of(_peer(models.model_directory(settings), places, swaps))
        engine.close()
    stalls = [_stall(stream, window, max(normal)) for window in windows]
    mixed = sum(not g.adapter or g.token_ids != alone[g.adapter.id] for g in stream.generations)
    ours = Spread.of(stalls)
    return BenchResult(
        name="swap",
        ours=ours.median,
        peer=peer.median,
        # A stall below a hundredth of a millisecond is not a figure to divide by.
        ratio=peer.median / max(ours.median, 0.01),
        unit="ms stall of an answer",
        n=swaps,
        bar=BAR,
        machine=machine(),
        date=today(),
        extra={
            "dropped": stream.dropped,
            "mixed": mixed,
            "engine": engine.runtime,
            "answers": len(stream.generations),
            "stall_spread": ours.to_json(),
            "normal_ms": percentile(normal, 0.5) * 1e3,
            "normal_longest_ms": max(normal) * 1e3,
            "load_ms": Spread.of([(end - begin) * 1e3 for begin, end in windows]).median,
        },
    )


def _prompt(engine: AdapterEngine) -> tuple[int, ...]:
    return engine.prompt("Facts: Ines Calder runs the observatory. Who runs the observatory?").token_ids


def _alone(engine: AdapterEngine, stream: Stream, places: list[Path]) -> dict[str, tuple[int, ...]]:
    engine.load_adapter(places[1])
    token_ids = {
        name: engine.generate(GenerateRequest(stream.prompt, True, NEW, adapter_id=name)).token_ids
        for name in NAMES
    }
    engine.unload(NAMES[1])
    return token_ids


def _swap(engine: AdapterEngine, places: list[Path], number: int) -> tuple[float, float]:
    """From the first byte that is read to the old one being let go; seconds."""
    new, old = number % 2, 1 - number % 2
    begin = time.perf_counter()
    engine.load_adapter(places[new])
    engine.switch(NAMES[new])
    engine.unload(NAMES[old])
    end = time.perf_counter()
    time.sleep(0.2)
    return begin, end


def _stall(stream: Stream, window: tuple[float, float], normal_s: float) -> float:
    begin, end = window
    overlapping = [b - a for a, b in stream.spans if a < end and b > begin]
    return max(0.0, (max(overlapping, default=0.0) - normal_s) * 1e3)


def _shipped(settings: Settings) -> Path:
    directory = models.adapter_directory(settings)
    if directory is None:
        raise Refused(f"no adapter ships for {settings.model.path}: there is nothing to swap")
    return directory


def _softened(shipped: Path, place: Path) -> Path:
    """The shipped adapter at half its strength, under a name of its own."""
    shutil.copytree(shipped, place)
    config = json.loads((place / CONFIG).read_text("utf-8"))
    (place / CONFIG).write_text(json.dumps({**config, "lora_alpha": config["lora_alpha"] / 2}), "utf-8")
    files = {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in (CONFIG, WEIGHTS)}
    manifest = json.loads((place / MANIFEST).read_text("utf-8"))
    (place / MANIFEST).write_text(json.dumps({**manifest, "id": NAMES[1], "files": files}), "utf-8")
    return place


def _peer(base_model: Path, places: list[Path], swaps: int) -> list[float]:
    """Milliseconds of each exchange: the model cannot answer while its modules change."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base: Any = AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(base, str(places[0]), adapter_name="a-0")
        times = []
        for number in range(1, swaps + 1):
            begin = time.perf_counter()
            model.load_adapter(str(places[number % 2]), adapter_name=f"a-{number}")
            model.set_adapter(f"a-{number}")
            model.delete_adapter(f"a-{number - 1}")
            times.append((time.perf_counter() - begin) * 1e3)
    return times
