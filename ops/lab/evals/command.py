"""The evaluations on the command line: loads what they need and shows progress on standard error."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Parts = tuple[Any, Any, Any]
"""Encoder, engine, gate calibration."""


def load_parts() -> Parts:
    """Encoder, model with its adapter and calibration of the default settings."""
    from daemon.parts import models
    from daemon.settings import Settings

    settings = Settings()
    encoder = models.encoder(settings)
    return encoder, models.engine(settings), models.calibration(settings, encoder)


def show_progress(what: str, done: int, total: int) -> None:
    """One line on standard error, rewritten; nothing where it is no terminal, but a line at the end."""
    if sys.stderr.isatty():
        print(f"\r{what}: {done}/{total}   ", end="\n" if done == total else "", file=sys.stderr, flush=True)
    elif done == total:
        print(f"{what}: {total}", file=sys.stderr, flush=True)


def parser(name: str, what: str | None, data: str, methods: Sequence[str]) -> argparse.ArgumentParser:
    """The options that all evaluations have."""
    options = argparse.ArgumentParser(prog=name, description=what)
    options.add_argument("--data", type=Path, required=True, help=data)
    options.add_argument("--method", action="append", choices=methods, help="default: all")
    options.add_argument("--limit", type=int, help="maximum number of records of each set")
    return options


def measure(run: Callable[[Parts], Mapping[str, Any]], load: Callable[[], Parts] = load_parts) -> int:
    """Load the parts, print what `run` finds as JSON, and close the engine."""
    parts = load()
    try:
        result = run(parts)
    finally:
        parts[1].close()
    print(json.dumps(result, indent=1, ensure_ascii=False))
    return 0
