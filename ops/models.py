"""The models that demo and evaluations take by their architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from daemon.cli.options import Arch

QWEN2 = Path(__file__).parents[1] / "tests" / "models" / "qwen2"
"""A Qwen2 of 7M parameters in transformers' layout, for fast tests (made by `ops/lab/recipes/recipe.py`)."""
QWEN2_ADAPTER = QWEN2 / "adapters" / "align-000001"
_SETTINGS: Mapping[Arch, Mapping[str, str]] = {
    Arch.LLAMA: {"path": "smollm2", "adapter": "embedded"},
    Arch.QWEN2: {"path": str(QWEN2), "adapter": str(QWEN2_ADAPTER)},
}


def model_settings(arch: Arch) -> dict[str, str]:
    """The settings under `model.` for the model of an architecture, by their full names."""
    return {f"model.{name}": value for name, value in _SETTINGS[arch].items()}


def model_environment(arch: Arch) -> dict[str, str]:
    """The same as the environment of a daemon."""
    return {f"LTE_MODEL__{name.upper()}": value for name, value in _SETTINGS[arch].items()}
