"""Adapter directories for the stub engine, written by hand: no torch, made in a millisecond."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from lte_runtime.answer.engine.stub import STUB_FINGERPRINT

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
NAMES = {"A": (2, 4), "B": (6, 2)}


def save_adapter(directory: Path, number: int, *, edit_ids: tuple[str, ...] = (), **manifest: Any) -> Path:
    """An adapter called by its number, with weights of its own."""
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(json.dumps(CONFIG))
    (directory / "adapter_model.safetensors").write_bytes(weights(number))
    names = ("adapter_config.json", "adapter_model.safetensors")
    files = {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in names}
    about = {
        "id": f"align-{number:06d}",
        "base_fingerprint": STUB_FINGERPRINT,
        "files": files,
        "edit_ids": list(edit_ids),
        **manifest,
    }
    (directory / "manifest.json").write_text(json.dumps(about))
    return directory


def weights(number: int) -> bytes:
    """One LoRA pair as a safetensors file."""
    header, data = {}, b""
    for half, shape in NAMES.items():
        raw = np.full(shape, number, np.float32).tobytes()
        place = [len(data), len(data) + len(raw)]
        name = f"base_model.model.layers.0.q_proj.lora_{half}.weight"
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": place}
        data += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data
