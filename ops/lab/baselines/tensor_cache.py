"""Tensors on disk that are made again when they are missing or are not the bytes that were written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor


def name_of(*parts: str) -> str:
    """A short name that changes with each of the parts (the base's hash, the texts, the recipe)."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def read(path: Path) -> dict[str, Tensor] | None:
    """None for what is missing and for what fails its hash: both are made anew."""
    try:
        stated = json.loads(_manifest(path).read_bytes())["sha256"]
        content = path.read_bytes()
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    if hashlib.sha256(content).hexdigest() != stated:
        return None
    return dict(load(content))


def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """The tensors first, the manifest last, each appearing whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    _replace(path, content)
    _replace(_manifest(path), json.dumps({"sha256": hashlib.sha256(content).hexdigest()}).encode())


def _manifest(path: Path) -> Path:
    return path.with_suffix(".json")


def _replace(path: Path, content: bytes) -> None:
    scratch = path.with_name(f"{path.name}.{os.getpid()}.part")
    scratch.write_bytes(content)
    scratch.replace(path)
