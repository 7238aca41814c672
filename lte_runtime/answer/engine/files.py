"""Model and adapter directories on disk: fingerprints, and the checks before any byte is parsed or used."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from lte_runtime.answer.engine.pace import at_once
from lte_runtime.disk import sha256_file
from lte_runtime.errors import Damaged, Refused
from lte_runtime.types import AdapterRef

MANIFEST = "manifest.json"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
# A header larger than this is an attack on the parser, not an adapter.
MAX_HEADER_BYTES = 8 << 20
# Bytes of one number.
DTYPES = {"F32": 4, "F16": 2, "BF16": 2}
LORA_NAME = re.compile(r"base_model\.model\.(?P<module>[\w.]+)\.lora_(?P<half>[AB])\.weight")
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


def resolve(model: str | Path, *, allow_download: bool = False) -> Path:
    """The directory of a model: itself, or the local copy of a hub id (fetched only when allowed)."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
        return Path(
            snapshot_download(str(model), local_files_only=not allow_download, allow_patterns=patterns)
        )
    except (OSError, ValueError) as error:
        raise Refused(f"model {model} is neither a directory nor in the local hub cache") from error


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
class Tensor:
    """Where a tensor stands in its file: `begin` in bytes."""

    dtype: str
    shape: tuple[int, ...]
    begin: int

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * DTYPES[self.dtype]


@dataclass(frozen=True, slots=True)
class Lora:
    """A verified adapter: its name, its directory, and the numbers that the merge needs."""

    ref: AdapterRef
    directory: Path
    rank: int
    scale: float
    targets: str | tuple[str, ...]


def verify_adapter(directory: Path, fingerprint: str) -> Lora:
    """Checks hashes, base, configuration and the tensors' names and shapes; reads no tensor.

    Raises `Damaged` when bytes are not what the manifest says, `Refused` when they are but do not fit.
    """
    manifest = read_json(directory, MANIFEST)
    files = manifest.get("files")
    if not isinstance(files, dict) or not {CONFIG, WEIGHTS} <= files.keys():
        raise Damaged(f"the manifest of {directory.name} does not list {CONFIG} and {WEIGHTS}")
    for name, digest in sorted(files.items()):
        _check_file(directory, name, digest)
    base = manifest.get("base_fingerprint")
    if base != fingerprint:
        bases = f"{str(base)[:12]}, not {fingerprint[:12]}"
        raise Refused(f"adapter {directory.name} was made for another base model ({bases})")
    config = read_json(directory, CONFIG)
    tensors = read_header(directory / WEIGHTS)
    adapter_id = manifest.get("id")
    if not isinstance(adapter_id, str) or not adapter_id:
        raise Damaged(f"the manifest of {directory.name} has no id")
    lora = _lora(AdapterRef(adapter_id, digest_of(files)), directory, config)
    _check_pairs(lora, tensors)
    return lora


def digest_of(files: Mapping[str, str]) -> str:
    """One hash for the whole adapter: of its files' names and digests, in order."""
    lines = "\n".join(f"{name} {digest}" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def read_json(directory: Path, name: str) -> dict[str, Any]:
    """A JSON object of a directory; raises `Damaged` when there is none."""
    try:
        value = json.loads((directory / name).read_bytes())
    except FileNotFoundError as error:
        raise Damaged(f"{directory.name} has no {name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{name} of {directory.name} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise Damaged(f"{name} of {directory.name} is not a JSON object")
    return value


def _check_file(directory: Path, name: str, digest: object) -> None:
    path = directory / name
    if not name or Path(name).name != name:
        raise Damaged(f"the manifest of {directory.name} names a file outside its directory: {name!r}")
    if path.is_symlink() or not path.is_file():
        raise Damaged(f"{name} of {directory.name} is missing or not a plain file")
    if sha256_file(path) != digest:
        raise Damaged(f"{name} of {directory.name} does not match the hash in its manifest")


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors that a safetensors file says it holds, by name; parses the header alone.

    Raises `Damaged` unless sizes, shapes and offsets agree with the file's length to the byte, and `Refused`
    for a tensor that is no half of a LoRA pair or has another dtype than `DTYPES`.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 0 < length <= min(MAX_HEADER_BYTES, size - 8):
            raise Damaged(f"{path.name} has no valid header")
        try:
            header = json.loads(file.read(length), object_pairs_hook=_without_duplicates)
        except (ValueError, RecursionError) as error:
            raise Damaged(f"the header of {path.name} cannot be read: {error}") from error
    if not isinstance(header, dict):
        raise Damaged(f"the header of {path.name} is not a JSON object")
    tensors = {name: _tensor(name, entry) for name, entry in header.items() if name != "__metadata__"}
    _check_layout(path.name, tensors, size - 8 - length)
    return {name: replace(tensor, begin=tensor.begin + 8 + length) for name, tensor in tensors.items()}


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two entries of one name would let the check see one and the parser the other."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a name occurs twice")
    return entries


def _tensor(name: str, entry: Any) -> Tensor:
    if not LORA_NAME.fullmatch(name):
        raise Refused(f"the weights hold {name[:200]!r}, which is not a LoRA tensor")
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if dtype not in DTYPES:
            raise Refused(f"tensor {name} has dtype {dtype}")
        numbers = (*shape, begin, end)
        if len(shape) != 2 or any(type(number) is not int for number in numbers):
            raise Damaged(f"tensor {name} is not a matrix of integer size")
        if begin < 0 or min(shape) < 1 or end - begin != math.prod(shape) * DTYPES[dtype]:
            raise Damaged(f"tensor {name} has a size that its shape does not give")
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"the header entry of {name} is malformed") from error
    return Tensor(dtype, shape, begin)


def _check_layout(file: str, tensors: Mapping[str, Tensor], size: int) -> None:
    """The tensors fill the file without a hole and without an overlap."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].begin):
        if tensor.begin != end:
            raise Damaged(f"tensor {name} does not begin where the one before ends")
        end += tensor.size
    if end != size:
        raise Damaged(f"{file} is {size - end:+d} bytes off the length that its header gives")


def _check_pairs(lora: Lora, tensors: Mapping[str, Tensor]) -> None:
    """Every module has both halves, A [rank, in] and B [out, rank], and the configuration means it."""
    modules = {match["module"] for name in tensors if (match := LORA_NAME.fullmatch(name))}
    if not modules:
        raise Damaged(f"adapter {lora.ref.id} holds no tensor")
    for module in sorted(modules):
        a, b = (tensors.get(f"base_model.model.{module}.lora_{half}.weight") for half in "AB")
        if a is None or b is None:
            raise Refused(f"adapter {lora.ref.id} has half a pair for {module}")
        if a.shape[0] != lora.rank or b.shape[1] != lora.rank:
            raise Refused(f"adapter {lora.ref.id} has shapes {a.shape} and {b.shape} for {module}")
        if not means(lora.targets, module):
            raise Refused(f"adapter {lora.ref.id} holds {module}, which its target_modules do not name")


def read_tensor(file: BinaryIO, tensor: Tensor) -> npt.NDArray[np.float32]:
    """A tensor of a checked header in float32, [rows, columns]; raises `Damaged` unless it is finite."""
    file.seek(tensor.begin)
    raw = np.frombuffer(
        file.read(tensor.size), dtype={"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[tensor.dtype]
    )
    # A bfloat16 is the upper half of a float32.
    wide = (raw.astype("<u4") << 16).view("<f4") if tensor.dtype == "BF16" else raw.astype("<f4")
    if not np.isfinite(wide).all():
        raise Damaged("a tensor is not finite")
    return wide.astype(np.float32, copy=False).reshape(tensor.shape)


def read_tensors(lora: Lora, pace: Callable[[], None] = at_once) -> dict[str, npt.NDArray[np.float32]]:
    """All tensors of a verified adapter by their names; raises `Damaged` for one that is not finite."""
    path = lora.directory / WEIGHTS
    tensors = {}
    with path.open("rb") as file:
        for name, tensor in read_header(path).items():
            try:
                tensors[name] = read_tensor(file, tensor)
            except (Damaged, ValueError) as error:
                raise Damaged(f"tensor {name} of adapter {lora.ref.id}: {error}") from error
            pace()
    return tensors


def means(targets: str | tuple[str, ...], module: str) -> bool:
    """Whether a configuration's targets mean a module, by peft's rule: full regex, or equal last parts."""
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return any(module == target or module.endswith(f".{target}") for target in targets)


def _lora(ref: AdapterRef, directory: Path, config: Mapping[str, Any]) -> Lora:
    if config.get("peft_type") != "LORA":
        raise Refused(f"adapter {ref.id} is {config.get('peft_type')}, not LORA")
    for name in UNSUPPORTED:
        if config.get(name) not in UNUSED:
            raise Refused(f"adapter {ref.id} uses {name}={config[name]!r}, which is not supported")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or not 0 < rank <= 1024:
        raise Damaged(f"adapter {ref.id} has no valid rank (r) and lora_alpha")
    targets = config.get("target_modules")
    if not targets or not isinstance(targets, str | list):
        raise Damaged(f"adapter {ref.id} names no target modules")
    try:
        re.compile(targets) if isinstance(targets, str) else None
    except re.error as error:
        raise Damaged(f"adapter {ref.id} has target_modules that are not a valid pattern: {error}") from error
    return Lora(
        ref=ref,
        directory=directory,
        rank=rank,
        scale=alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank,
        targets=targets if isinstance(targets, str) else tuple(map(str, targets)),
    )
