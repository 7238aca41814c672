"""Loading a model's tokenizer as its directory describes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

PLAIN = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes that take `tokenizer.json` as it stands."""


def load_tokenizer(directory: Path) -> Any:
    """The tokenizer of a model on this machine; nothing is fetched and no code of the directory is run.

    For some architectures, Qwen2 among them, AutoTokenizer (5.23) overrules the class that the directory
    names by one that rebuilds normaliser and word pattern. Where it names a plain one, that one is taken.
    """
    config = directory / "tokenizer_config.json"
    named = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    loader = PreTrainedTokenizerFast if named.get("tokenizer_class") in PLAIN else AutoTokenizer
    return loader.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
