"""The language models that ship with the project, and the recipe that makes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_HERE = Path(__file__).parent
SHIPPED: Mapping[str, Path] = {"embedded": _HERE / "llama", "embedded-qwen2": _HERE / "qwen2"}
"""Folders of the embedded base models by the name that `model.path` takes, in transformers' layout."""
ARCHITECTURES: Mapping[str, str] = {folder.name: name for name, folder in SHIPPED.items()}
"""Names of the embedded models by their architecture."""


def model_path(name: str = "embedded") -> Path:
    """Folder of an embedded base model."""
    return SHIPPED[name]


def adapter_path(name: str = "embedded") -> Path:
    """Folder of the first alignment adapter of an embedded model, in the layout that peft reads."""
    return SHIPPED[name] / "adapters" / "align-000001"
