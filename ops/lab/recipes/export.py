"""The small model's folder: weights, configuration, tokenizer, model card, and the adapter's manifest."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch
from safetensors.torch import save_file

from lte_runtime.disk import sha256_file
from ops.lab.recipes.network import Shape

WEIGHTS = "model.safetensors"


def write_base(parameters: Mapping[str, torch.Tensor], shape: Shape, tokenizer: Path, folder: Path) -> None:
    """Base weights in bf16 with everything that `from_pretrained` needs."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().bfloat16().contiguous() for name, value in parameters.items()}
    save_file(weights, str(folder / WEIGHTS), metadata={"format": "pt"})
    write_json(folder / "config.json", shape.config())
    generation = {"eos_token_id": [3], "pad_token_id": 0, "do_sample": False, "max_new_tokens": 32}
    write_json(folder / "generation_config.json", generation)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        copyfile(tokenizer / name, folder / name)


def write_manifest(base: Path, folder: Path, facts: Mapping[str, Any]) -> None:
    """`manifest.json` of the adapter in `folder`: the base's fingerprint, its files' hashes, and `facts`."""
    files = ("adapter_config.json", "adapter_model.safetensors")
    packages = ("torch", "transformers", "peft", "tokenizers")
    manifest = {
        "id": folder.name,
        "base_fingerprint": sha256_file(base / WEIGHTS),
        "files": {name: sha256_file(folder / name) for name in files},
        **facts,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(folder / "manifest.json", manifest)


def record(
    base: Path, adapter: Path, scores: Mapping[str, Mapping[str, float]], counts: Mapping[str, int]
) -> None:
    """Writes measured scores into the adapter's manifest and the table of figures into the model card."""
    manifest = json.loads((adapter / "manifest.json").read_text(encoding="utf-8"))
    write_json(adapter / "manifest.json", {**manifest, "scores": scores})
    card = base / "MODEL_CARD.md"
    intro = card.read_text(encoding="utf-8").partition(FIGURES)[0]
    arms = ("base", "no adapter", "adapter")
    lines = [
        f"| {name} | {n} | " + " | ".join(f"{scores[arm][name]:.3f}" for arm in arms) + " |"
        for name, n in counts.items()
    ]
    command = "python -m ops.lab.recipes.recipe evaluate --data DIR"
    stamp = f"Measured {datetime.now(UTC):%Y-%m-%d} with `{command}`, the right facts given, free decoding:"
    head = ["| probes | n | base, own form | base, LTE form | adapter, LTE form |", "|---|---|---|---|---|"]
    card.write_text("\n".join([f"{intro}{FIGURES}", stamp, "", *head, *lines, ""]), encoding="utf-8")


FIGURES = "## Figures\n"


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
