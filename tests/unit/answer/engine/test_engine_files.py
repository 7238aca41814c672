"""Adapter directories: damage and misfit are refused with a reason, before anything is used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lte_runtime.answer.engine.files import base_fingerprint, verify_adapter
from lte_runtime.answer.engine.lora import read_pairs
from lte_runtime.disk import sha256_file
from lte_runtime.errors import Damaged, LteError, Refused
from tests.unit.answer.engine import tiny

WEIGHTS, CONFIG, MANIFEST = "adapter_model.safetensors", "adapter_config.json", "manifest.json"
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def adapter(tmp_path: Path, adapter_dir: Path) -> Path:
    return Path(shutil.copytree(adapter_dir, tmp_path / "copy"))


def load(adapter: Path, model_dir: Path) -> None:
    found = verify_adapter(adapter, base_fingerprint(model_dir))
    read_pairs(found, AutoModelForCausalLM.from_pretrained(model_dir))


def test_a_sound_adapter_has_a_name_and_a_hash(adapter: Path, model_dir: Path) -> None:
    found = verify_adapter(adapter, base_fingerprint(model_dir))
    assert found.ref.id == "align-000001"
    assert len(found.ref.sha256) == 64
    assert (found.rank, found.scale) == (4, 2.0)
    load(adapter, model_dir)


def test_the_hash_names_the_files(adapter: Path, model_dir: Path) -> None:
    before = verify_adapter(adapter, base_fingerprint(model_dir)).ref
    tiny.rewrite_tensors(adapter, lambda tensors: {name: -value for name, value in tensors.items()})
    assert verify_adapter(adapter, base_fingerprint(model_dir)).ref.sha256 != before.sha256


def change_json(name: str, **changes: Any) -> Callable[[Path], None]:
    """Edits a JSON file and, unless it is the manifest, lets the manifest agree with it."""

    def change(adapter: Path) -> None:
        path = adapter / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        if name != MANIFEST:
            fingerprint = json.loads((adapter / MANIFEST).read_text())["base_fingerprint"]
            tiny.write_manifest(adapter, fingerprint)

    return change


def change_tensors(change: Callable[[Tensors], Tensors]) -> Callable[[Path], None]:
    return lambda adapter: tiny.rewrite_tensors(adapter, change)


def change_bytes(name: str, change: Callable[[bytes], bytes], *, agree: bool) -> Callable[[Path], None]:
    def apply(adapter: Path) -> None:
        path = adapter / name
        path.write_bytes(change(path.read_bytes()))
        if agree:
            fingerprint = json.loads((adapter / MANIFEST).read_text())["base_fingerprint"]
            tiny.write_manifest(adapter, fingerprint)

    return apply


def first(tensors: Tensors) -> str:
    return min(tensors)


def poisoned(value: float) -> Callable[[Tensors], Tensors]:
    def poison(tensors: Tensors) -> Tensors:
        tensors[first(tensors)].view(-1)[0] = value
        return tensors

    return poison


def pickle_only(adapter: Path) -> None:
    torch.save({}, adapter / "adapter_model.bin")
    (adapter / WEIGHTS).unlink()


def linked(adapter: Path) -> None:
    (adapter / WEIGHTS).rename(adapter.parent / "elsewhere")
    (adapter / WEIGHTS).symlink_to(adapter.parent / "elsewhere")


def escaping(adapter: Path) -> None:
    manifest = json.loads((adapter / MANIFEST).read_text())
    manifest["files"]["../copy/adapter_config.json"] = sha256_file(adapter / CONFIG)
    (adapter / MANIFEST).write_text(json.dumps(manifest))


def huge_header(raw: bytes) -> bytes:
    return (1 << 62).to_bytes(8, "little") + raw[8:]


def lying_offsets(raw: bytes) -> bytes:
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header[min(name for name in header if name != "__metadata__")]["data_offsets"][1] += 4
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + raw[8 + length :]


DAMAGED: dict[str, Callable[[Path], None]] = {
    "no manifest": lambda adapter: (adapter / MANIFEST).unlink(),
    "manifest torn": change_bytes(MANIFEST, lambda raw: raw[:40], agree=False),
    "manifest no object": change_bytes(MANIFEST, lambda _: b"[]", agree=False),
    "manifest nested": change_bytes(MANIFEST, lambda _: b"[" * 100_000, agree=False),
    "manifest without files": change_json(MANIFEST, files={}),
    "manifest without id": change_json(MANIFEST, id=""),
    "file outside": escaping,
    "no weights": lambda adapter: (adapter / WEIGHTS).unlink(),
    "pickle only": pickle_only,
    "symlink": linked,
    "bit flip": change_bytes(WEIGHTS, lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), agree=False),
    "truncated": change_bytes(WEIGHTS, lambda raw: raw[:-100], agree=False),
    "truncated, hash agrees": change_bytes(WEIGHTS, lambda raw: raw[:-100], agree=True),
    "zero bytes, hash agrees": change_bytes(WEIGHTS, lambda _: b"", agree=True),
    "zero filled, hash agrees": change_bytes(WEIGHTS, lambda raw: bytes(len(raw)), agree=True),
    "huge header": change_bytes(WEIGHTS, huge_header, agree=True),
    "lying offsets": change_bytes(WEIGHTS, lying_offsets, agree=True),
    "extra bytes": change_bytes(WEIGHTS, lambda raw: raw + b"x", agree=True),
    "configuration edited": change_bytes(CONFIG, lambda raw: raw + b" ", agree=False),
    "no rank": change_json(CONFIG, r=None),
    "rank zero": change_json(CONFIG, r=0),
    "no targets": change_json(CONFIG, target_modules=None),
    "nan": change_tensors(poisoned(float("nan"))),
    "infinite": change_tensors(poisoned(float("inf"))),
}
REFUSED: dict[str, Callable[[Path], None]] = {
    "other base": change_json(MANIFEST, base_fingerprint="0" * 64),
    "no base": change_json(MANIFEST, base_fingerprint=None),
    "not lora": change_json(CONFIG, peft_type="IA3"),
    "dora": change_json(CONFIG, use_dora=True),
    "bias": change_json(CONFIG, bias="all"),
    "saved modules": change_json(CONFIG, modules_to_save=["lm_head"]),
    "other rank": change_json(CONFIG, r=8),
    "targets an embedding": change_json(CONFIG, target_modules=["embed_tokens", "q_proj"]),
    "targets too few": change_json(CONFIG, target_modules=["q_proj"]),
    "targets too many": change_json(CONFIG, target_modules=[*tiny.targets("llama"), "k_proj"]),
    "missing pair": change_tensors(
        lambda tensors: {n: t for n, t in tensors.items() if "layers.0.self_attn.q_proj" not in n}
    ),
    "half a pair": change_tensors(lambda tensors: {n: t for n, t in tensors.items() if n != first(tensors)}),
    "extra tensor": change_tensors(lambda tensors: {**tensors, "lm_head.weight": torch.ones(2)}),
    "wrong shape": change_tensors(lambda tensors: {**tensors, first(tensors): torch.ones(4, 7)}),
    "integers": change_tensors(
        lambda tensors: {**tensors, first(tensors): torch.ones(4, 32, dtype=torch.int32)}
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged(kind: str, adapter: Path, model_dir: Path) -> None:
    DAMAGED[kind](adapter)
    with pytest.raises(Damaged):
        load(adapter, model_dir)


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind: str, adapter: Path, model_dir: Path) -> None:
    REFUSED[kind](adapter)
    with pytest.raises(Refused):
        load(adapter, model_dir)


def test_fingerprint_of_shards_depends_on_each(tmp_path: Path) -> None:
    (tmp_path / "model-00001.safetensors").write_bytes(b"a")
    alone = base_fingerprint(tmp_path)
    assert alone == sha256_file(tmp_path / "model-00001.safetensors")
    (tmp_path / "model-00002.safetensors").write_bytes(b"b")
    both = base_fingerprint(tmp_path)
    (tmp_path / "model-00002.safetensors").write_bytes(b"c")
    assert len({alone, both, base_fingerprint(tmp_path)}) == 3


def test_pickled_base_is_refused(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(LteError, match="pickled"):
        base_fingerprint(tmp_path)
