"""The language model that ships with the project, and the recipe that makes it."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def model_path(name: str = "llama") -> Path:
    """Folder of the embedded base model, in the layout that transformers reads."""
    return _HERE / name


def adapter_path(name: str = "llama") -> Path:
    """Folder of the first alignment adapter of the embedded model, in the layout that peft reads."""
    return _HERE / name / "adapters" / "align-000001"
