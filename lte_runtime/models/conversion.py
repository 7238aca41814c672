"""Conversion of a GGUF file in a child process: its memory, of several times the weights, goes with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from lte_runtime.errors import Refused
from lte_runtime.progress import Progress

WEIGHTS = "model.safetensors"
"""The weights of a model that is not in shards."""
Convert = Callable[[Path, Path, Progress], Mapping[str, str]]
"""`convert(gguf, folder, progress)` fills an empty folder in transformers' layout, and says how."""


def run_conversion(gguf: Path, folder: Path, progress: Progress) -> Mapping[str, str]:
    """Fills `folder` with config, tokenizer and bf16 weights; returns the versions that made them.

    Blocks until the child ends, which is killed when the caller is interrupted. Raises `Refused` with the
    child's reason.
    """
    command = [sys.executable, "-m", "lte_runtime.models.child", str(gguf.absolute()), str(folder)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=environment
        ) as child,
    ):
        try:
            details = _follow(child, progress)
        except BaseException:
            child.kill()
            raise
        if child.wait() != 0 or details is None:
            raise Refused(f"{gguf} cannot be converted: {_reason(errors, child.returncode)}")
    return details


def _follow(child: subprocess.Popen[bytes], progress: Progress) -> Mapping[str, str] | None:
    """Pass the child's steps on; returns its last line, the details, if it came that far."""
    details = None
    for line in child.stdout or ():
        message = json.loads(line)
        if "step" in message:
            progress(message["step"], message["done"], message["total"])
        else:
            details = message["details"]
    return details


def _reason(errors: IO[bytes], status: int) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    if status < 0:
        return f"the conversion was ended by signal {-status} (out of memory?)"
    return lines[-1] if lines else f"the conversion ended with status {status}"
