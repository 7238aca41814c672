"""Generates `daemon/rpc/gen` from the protos; `python -m daemon.rpc.generate [DIRECTORY]`.

protoc writes imports as if `lte` were a package of its own at the top level. It is moved below
`daemon.rpc.gen`, so that nothing of that name is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

PROTOS = Path(__file__).parent / "protos"
GENERATED = Path(__file__).parent / "gen"
PACKAGE = "daemon.rpc.gen"


def main() -> None:
    """Replaces the generated tree in the given directory, by default the committed one."""
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else GENERATED)


def generate(target: Path) -> None:
    """Writes the same bytes for the same protos and tools (grpcio-tools and mypy-protobuf, pinned)."""
    with tempfile.TemporaryDirectory() as build_dir:
        _protoc(Path(build_dir))
        for path in sorted(Path(build_dir).rglob("*.py*")):
            path.write_text(moved(path.read_text("utf-8")), "utf-8")
        for package in (Path(build_dir), *(path for path in Path(build_dir).rglob("*") if path.is_dir())):
            (package / "__init__.py").touch()
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(build_dir, target)


def moved(source: str) -> str:
    """Generated source with every import of `lte.v1` below `daemon.rpc.gen`."""
    source = re.sub(r"^from lte\.v1 import", f"from {PACKAGE}.lte.v1 import", source, flags=re.M)
    source = re.sub(r"^import lte\.v1\.", f"import {PACKAGE}.lte.v1.", source, flags=re.M)
    return re.sub(r"(?<![\w./\"'])lte\.v1\.(?=\w+_pb2)", f"{PACKAGE}.lte.v1.", source)


def _protoc(out: Path) -> None:
    """protoc finds its mypy plugins on the path, beside the interpreter."""
    import grpc_tools  # type: ignore[import-untyped]
    from grpc_tools import protoc

    bundled = Path(grpc_tools.__file__).parent / "_proto"
    files = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    options = ["python_out", "grpc_python_out", "mypy_out", "mypy_grpc_out"]
    outputs = [f"--{option}={out}" for option in options]
    arguments = ["protoc", f"-I{PROTOS}", f"-I{bundled}", *outputs, *files]
    if protoc.main(arguments):
        raise SystemExit("protoc failed; its message is above")


if __name__ == "__main__":
    main()
