"""Model and adapter directories on disk: fingerprints, and the checks before any byte is parsed or used."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lte_runtime.errors import Damaged, Refused
from lte_runtime.types import AdapterRef

MANIFEST = "manifest.json"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
# A header larger than this is an attack on the parser, not an adapter.
MAX_HEADER_BYTES = 8 << 20
DTYPES = frozenset({"F32", "F16", "BF16"})
# Kinds of LoRA that the merge does not do: an adapter that uses one would be silently half applied.
UNSUPPORTED = (
    "use_dora",
    "bias",
    "modules_to_save",
    "layers_to_transform",
    "rank_pattern",
    "alpha_pattern",
    "exclude_modules",
    "trainable_token_indices",
    "target_parameters",
    "lora_bias",
    "use_qalora",
    "layer_replication",
)
UNUSED: tuple[object, ...] = (None, False, "none", [], {})


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def base_fingerprint(directory: Path) -> str:
    """SHA-256 of the base model's weights: of the one safetensors file, or of the shards' digests by name."""
    shards = sorted(directory.glob("*.safetensors"))
    if not shards:
        raise Refused(f"{directory.name} holds no safetensors file; pickled weights are never loaded")
    digests = [sha256_file(shard) for shard in shards]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Lora:
    """A verified adapter: its name, its directory, and the numbers that the merge needs."""

    ref: AdapterRef
    directory: Path
    rank: int
    scale: float
    targets: str | tuple[str, ...]


def verify_adapter(directory: Path, fingerprint: str) -> Lora:
    """Checks hashes, base, configuration and the tensors' header; parses no tensor.

    Raises `Damaged` when bytes are not what the manifest says, `Refused` when they are but do not fit.
    """
    manifest = _read_json(directory, MANIFEST)
    files = manifest.get("files")
    if not isinstance(files, dict) or not {CONFIG, WEIGHTS} <= files.keys():
        raise Damaged(f"the manifest of {directory.name} does not list {CONFIG} and {WEIGHTS}")
    for name, digest in sorted(files.items()):
        _check_file(directory, name, digest)
    if manifest.get("base_fingerprint") != fingerprint:
        raise Refused(f"adapter {directory.name} was made for another base model")
    config = _read_json(directory, CONFIG)
    _check_header(directory / WEIGHTS)
    adapter_id = manifest.get("id")
    if not isinstance(adapter_id, str) or not adapter_id:
        raise Damaged(f"the manifest of {directory.name} has no id")
    return _lora(AdapterRef(adapter_id, _digest_of(files)), directory, config)


def _digest_of(files: Mapping[str, str]) -> str:
    """One hash for the whole adapter: of its files' names and digests, in order."""
    lines = "\n".join(f"{name} {digest}" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _read_json(directory: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((directory / name).read_bytes())
    except FileNotFoundError as error:
        raise Damaged(f"{directory.name} has no {name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{name} of {directory.name} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise Damaged(f"{name} of {directory.name} is no JSON object")
    return value


def _check_file(directory: Path, name: str, digest: object) -> None:
    path = directory / name
    if not name or Path(name).name != name:
        raise Damaged(f"the manifest of {directory.name} names a file outside: {name!r}")
    if path.is_symlink() or not path.is_file():
        raise Damaged(f"{name} of {directory.name} is missing or no plain file")
    if sha256_file(path) != digest:
        raise Damaged(f"{name} of {directory.name} does not have the hash that its manifest says")


def _check_header(path: Path) -> None:
    """Reads the safetensors header alone: sizes, dtypes and offsets that agree with the file's length."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 0 < length <= min(MAX_HEADER_BYTES, size - 8):
            raise Damaged(f"{path.name} has no sound header")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise Damaged(f"the header of {path.name} cannot be read: {error}") from error
    if not isinstance(header, dict):
        raise Damaged(f"the header of {path.name} is no JSON object")
    end = 0
    for name, entry in header.items():
        if name != "__metadata__":
            end = max(end, _check_entry(name, entry))
    if end != size - 8 - length:
        raise Damaged(f"{path.name} is {size - 8 - length - end:+d} bytes off its header")


def _check_entry(name: str, entry: Any) -> int:
    """Returns where the tensor's bytes end."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if dtype not in DTYPES:
            raise Refused(f"tensor {name} has dtype {dtype}")
        width = 4 if dtype == "F32" else 2
        if begin < 0 or end - begin != math.prod(shape) * width or min(shape, default=0) < 1:
            raise Damaged(f"tensor {name} has a size that its shape does not give")
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"the header entry of {name} is malformed") from error
    return int(end)


def _lora(ref: AdapterRef, directory: Path, config: Mapping[str, Any]) -> Lora:
    if config.get("peft_type") != "LORA":
        raise Refused(f"adapter {ref.id} is {config.get('peft_type')}, not LORA")
    for name in UNSUPPORTED:
        if config.get(name) not in UNUSED:
            raise Refused(f"adapter {ref.id} uses {name}={config[name]!r}, which is not supported")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or not 0 < rank <= 1024:
        raise Damaged(f"adapter {ref.id} has no sound rank and alpha")
    targets = config.get("target_modules")
    if not targets or not isinstance(targets, str | list):
        raise Damaged(f"adapter {ref.id} names no target modules")
    return Lora(
        ref=ref,
        directory=directory,
        rank=rank,
        scale=alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank,
        targets=targets if isinstance(targets, str) else tuple(map(str, targets)),
    )
