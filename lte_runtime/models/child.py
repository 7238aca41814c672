"""The child process of a conversion: `python -m lte_runtime.models.child GGUF FOLDER`.

Prints one JSON object a line: steps, then the versions that made the files.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

STEPS = ("reading the tokenizer", "reading the weights", "writing")


def main(gguf: Path, folder: Path) -> None:
    """Fill `folder` with what `from_pretrained` needs, weights in bf16."""
    with tempfile.TemporaryDirectory() as alone:
        # Beside it there may be files (config.json, tokenizer.json) that would be read too.
        (Path(alone) / gguf.name).symlink_to(gguf)
        _step(0)
        tokenizer: Any = AutoTokenizer.from_pretrained(
            alone, gguf_file=gguf.name, local_files_only=True, trust_remote_code=False
        )
        _step(1)
        model = _load(alone, gguf.name)
    _step(2)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    details = {name: version(name) for name in ("transformers", "gguf", "torch")}
    print(json.dumps({"details": {"dtype": "bfloat16", **details}}), flush=True)


def _load(directory: str, name: str) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(
        directory,
        gguf_file=name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        local_files_only=True,
        trust_remote_code=False,
    )
    packed = {str(parameter.dtype) for parameter in model.parameters()} - {str(torch.bfloat16)}
    if packed:
        raise RuntimeError(f"weights were left as {', '.join(sorted(packed))}")
    # It is no quantized model any more, but `save_pretrained` refuses what still says so.
    model.hf_quantizer, model.is_quantized = None, False
    vars(model.config).pop("quantization_config", None)
    return model


def _step(number: int) -> None:
    print(json.dumps({"step": STEPS[number], "done": number, "total": len(STEPS)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
