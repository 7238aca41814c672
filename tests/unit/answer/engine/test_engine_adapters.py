"""Bad adapters change nothing (P11), and several good ones serve side by side on a real (tiny) model."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm_stand_in import StandIn

from lte_runtime.align.registry import Registry
from lte_runtime.answer.engine.hf import HfEngine
from lte_runtime.answer.engine.openvino_engine import OpenVinoEngine
from lte_runtime.answer.engine.tokenized import TokenizedEngine
from lte_runtime.answer.engine.vllm.engine import VllmEngine
from lte_runtime.errors import Damaged, NotFound, Refused
from lte_runtime.types import GenerateRequest, Generation
from tests.unit.answer.engine import test_engine_files as files
from tests.unit.answer.engine import tiny

PROMPT = (5, 17, 99, 230, 41)
NEW = 8
MODES = ["merged", "unmerged", "openvino", "vllm"]


@pytest.fixture(scope="module")
def engine_in(model_dir: Path) -> Iterator[Callable[..., TokenizedEngine]]:
    """`engine_in(mode, adapter)`: an engine in float32 on one thread; of `vllm`, over one server for all."""
    server = StandIn(model_dir)
    server.start()

    def load(mode: str, adapter: Path | None = None, **settings: Any) -> TokenizedEngine:
        if mode == "vllm":
            return VllmEngine.load(model_dir, adapter, urls=[server.url], **settings)
        if mode == "openvino":
            return OpenVinoEngine.load(model_dir, adapter, weights="float32", threads=1, **settings)
        options: dict[str, Any] = {"device": "cpu", "dtype": "float32", "threads": 1, **settings}
        return HfEngine.load(model_dir, adapter, adapter_mode=mode, **options)

    yield load
    server.kill()


def ask(engine: TokenizedEngine, adapter_id: str | None = None, adapter: bool = True) -> Generation:
    return engine.generate(GenerateRequest(PROMPT, adapter, NEW, adapter_id=adapter_id))


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> dict[str, Path]:
    """Three sound adapters by their names."""
    found = {}
    for number in (1, 2, 3):
        place = tmp_path_factory.mktemp("adapters") / str(number)
        tiny.save_adapter(place, model_dir, seed=number)
        found[renamed(place, number)] = place
    return found


def renamed(place: Path, number: int) -> str:
    name = f"align-{number:06d}"
    base = json.loads((place / files.MANIFEST).read_text())["base_fingerprint"]
    tiny.write_manifest(place, base, id=name)
    return name


@pytest.fixture(scope="module", params=["merged", "openvino", "vllm"])
def engine(
    request: pytest.FixtureRequest,
    engine_in: Callable[..., TokenizedEngine],
    adapters: dict[str, Path],
) -> Iterator[TokenizedEngine]:
    made = engine_in(request.param, adapters["align-000001"])
    yield made
    made.close()


def stranger(name: str, data: bytes = b"\x80\x04") -> Callable[[Path], None]:
    return lambda adapter: (adapter / name).write_bytes(data) and None


def linked_directory(adapter: Path) -> None:
    elsewhere = adapter.with_name("elsewhere")
    adapter.rename(elsewhere)
    adapter.symlink_to(elsewhere, target_is_directory=True)


def in_manifest(**changes: Any) -> Callable[[Path], None]:
    def change(adapter: Path) -> None:
        path = adapter / files.MANIFEST
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def in_header(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    """Rewrites the safetensors header alone."""

    def rewrite(raw: bytes) -> bytes:
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        text = change(header) or json.dumps(header)
        return len(text.encode()).to_bytes(8, "little") + text.encode() + raw[8 + length :]

    return rewrite


def tensors_of(header: dict[str, Any]) -> list[str]:
    return sorted(name for name in header if name != "__metadata__")


def overlapping(header: dict[str, Any]) -> None:
    one, two = tensors_of(header)[:2]
    header[one]["data_offsets"] = header[two]["data_offsets"]
    header[one]["shape"] = header[two]["shape"]


def twice(header: dict[str, Any]) -> str:
    name = tensors_of(header)[0]
    return json.dumps(header)[:-1] + f', "{name}": {json.dumps(header[name])}}}'


def scaled(factor: float) -> Callable[[Path], None]:
    return files.change_tensors(lambda tensors: {name: value * factor for name, value in tensors.items()})


MORE: dict[str, Callable[[Path], None]] = {
    "a pickle beside": stranger("adapter_model.bin"),
    "code beside": stranger("model.py", b"import os"),
    "a directory beside": lambda adapter: (adapter / "more").mkdir(),
    "a link beside": lambda adapter: (adapter / "more").symlink_to("/etc/passwd"),
    "the directory is a link": linked_directory,
    "no directory": lambda adapter: shutil.rmtree(adapter),
    "a third file in the manifest": in_manifest(files={"a": "b"}),
    "name is a path": in_manifest(id="../align-000009"),
    "name of the wrong width": in_manifest(id="align-9"),
    "name of another one": in_manifest(id="align-000001"),
    "overlapping tensors": files.change_bytes(files.WEIGHTS, in_header(overlapping), agree=True),
    "a tensor twice": files.change_bytes(files.WEIGHTS, in_header(twice), agree=True),
    "finite but too large": scaled(1e30),
    "without effect": scaled(0.0),
    "targets no pattern": files.change_json(files.CONFIG, target_modules="(q_proj"),
    "alpha no number": files.change_json(files.CONFIG, lora_alpha="many"),
}
KINDS = {**files.DAMAGED, **files.REFUSED, **MORE}
# Only the pass over the model finds them.
LOADED = {"finite but too large", "without effect"}


def test_there_are_forty_kinds() -> None:
    assert len(KINDS) >= 40


def take_in(bad: Path, registry: Registry, engine: TokenizedEngine, kind: str) -> None:
    ref = registry.add(bad, {})
    assert kind in LOADED
    engine.load_adapter(registry.get(ref.id).directory)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_adapter_changes_nothing(
    kind: str, tmp_path: Path, engine: TokenizedEngine, adapters: dict[str, Path]
) -> None:
    before = (ask(engine), ask(engine, adapter=False))
    registry = Registry(tmp_path / "registry", engine.check_adapter, reserved={"align-000001"})
    bad = Path(shutil.copytree(adapters["align-000002"], tmp_path / "copy"))
    KINDS[kind](bad)
    with pytest.raises((Damaged, Refused)) as told:
        take_in(bad, registry, engine, kind)
    assert len(str(told.value)) > 20
    if kind not in LOADED:
        assert [path for path in registry.root.iterdir() if not path.name.startswith("damaged-")] == []
    assert [ref.id for ref in engine.adapters] == ["align-000001"]
    after = (ask(engine), ask(engine, adapter=False))
    assert [g.token_ids for g in after] == [g.token_ids for g in before]
    assert [g.adapter for g in after] == [g.adapter for g in before]


@pytest.mark.parametrize("mode", MODES)
def test_each_adapter_answers_as_it_does_alone(
    mode: str, engine_in: Callable[..., TokenizedEngine], adapters: dict[str, Path]
) -> None:
    alone = {}
    for name, place in adapters.items():
        single = engine_in(mode, place)
        alone[name] = ask(single).token_ids
        single.close()
    assert len(set(alone.values())) == len(alone)
    engine = engine_in(mode)
    base = ask(engine, adapter=False).token_ids
    for place in adapters.values():
        engine.load_adapter(place)
    assert ask(engine).token_ids == base
    for name in [*adapters, *reversed(adapters)]:
        engine.switch(name)
        assert (ask(engine).token_ids, ask(engine).adapter) == (alone[name], engine.adapter)
        assert ask(engine, adapter=False).token_ids == base
        for other in adapters:
            assert ask(engine, other).token_ids == alone[other]
    engine.switch(None)
    engine.unload("align-000002")
    with pytest.raises(NotFound):
        ask(engine, "align-000002")
    assert ask(engine, "align-000003").token_ids == alone["align-000003"]
    engine.close()


@pytest.mark.parametrize("mode", MODES)
def test_answers_under_way_keep_their_adapter(
    mode: str, engine_in: Callable[..., TokenizedEngine], adapters: dict[str, Path]
) -> None:
    """Loads, switches and unloads in one thread, questions in four: each answer is its adapter's own."""
    engine = engine_in(mode, max_batch=1)
    for place in adapters.values():
        engine.load_adapter(place)
    alone = {name: ask(engine, name).token_ids for name in adapters}
    engine.switch("align-000001")
    over, made, faults = threading.Event(), list[Generation](), list[BaseException]()

    def stream() -> None:
        try:
            while not over.is_set():
                made.append(ask(engine))
        except BaseException as error:  # noqa: BLE001 - told to the test
            faults.append(error)

    threads = [threading.Thread(target=stream) for _ in range(4)]
    for thread in threads:
        thread.start()
    before = "align-000001"
    for turn in range(12):
        name = f"align-{1 + turn % 3:06d}"
        engine.load_adapter(adapters[name]) if name not in {ref.id for ref in engine.adapters} else None
        engine.switch(name)
        if name != before:
            engine.unload(before)
        before = name
    over.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert made
    assert all(g.adapter and g.token_ids == alone[g.adapter.id] for g in made)
    assert [ref.id for ref in engine.adapters] == [before]
    engine.close()


def test_the_unmerged_layers_add_nothing_for_the_base(model_dir: Path, adapters: dict[str, Path]) -> None:
    options: dict[str, Any] = {"device": "cpu", "dtype": "bfloat16", "threads": 1}
    engine = HfEngine.load(model_dir, adapters["align-000001"], adapter_mode="unmerged", **options)
    plain = HfEngine.load(model_dir, **options)
    ids = torch.tensor([PROMPT])
    ours = engine._versions.pin(adapter=False).model(input_ids=ids).logits
    assert torch.equal(ours, plain._versions.pin(adapter=False).model(input_ids=ids).logits)
    engine.close()
    plain.close()
