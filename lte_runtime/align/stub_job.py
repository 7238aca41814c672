"""The stub's alignment job: `python -m lte_runtime.align.stub_job JOBDIR`. No model, no torch, done at once.

It keeps the contract of `lte_runtime.align.job` for the stub engine, so that the many trials are cheap. The
preset says how it behaves: `stub` promotes, `stub:worse` is rejected, `stub:none` finds that no adapter is
best, and the others are the ways in which a trainer can misbehave (`BEHAVIOURS`).
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# What a hung trainer does: nothing, for longer than anybody waits.
_FOREVER_S = 3600.0
Json = dict[str, Any]


def main(arguments: list[str]) -> int:
    """JOBDIR; exit status 0 whenever there is a result."""
    jobdir = Path(arguments[0])
    job: Json = json.loads((jobdir / "job.json").read_text("utf-8"))
    behaviour = str(job["preset"]).partition(":")[2] or "promote"
    signal.signal(signal.SIGTERM, lambda *_: _cancelled(jobdir))
    return BEHAVIOURS[behaviour](jobdir, job)


def _promote(jobdir: Path, job: Json) -> int:
    return _done(jobdir, job, {"candidate": 1.0, "incumbent": 0.6, "none": 0.5})


def _worse(jobdir: Path, job: Json) -> int:
    return _done(jobdir, job, {"candidate": 0.6, "incumbent": 1.0, "none": 0.5})


def _none(jobdir: Path, job: Json) -> int:
    return _done(jobdir, job, {"candidate": 0.6, "incumbent": 0.5, "none": 1.0})


def _slow(jobdir: Path, job: Json) -> int:
    """Trains for a few seconds, or until `go` appears beside it."""
    for step in range(100):
        progress(jobdir, "training", step, 100)
        if (jobdir / "go").exists():
            break
        time.sleep(0.1)
    return _promote(jobdir, job)


def _crash(_jobdir: Path, _job: Json) -> int:
    os._exit(3)


def _abort(_jobdir: Path, _job: Json) -> int:
    os.abort()


def _killed(_jobdir: Path, _job: Json) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def _hang(jobdir: Path, _job: Json) -> int:
    progress(jobdir, "training", 1, 100)
    time.sleep(_FOREVER_S)
    return 0


def _deaf(jobdir: Path, job: Json) -> int:
    """Hangs and does not listen."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return _hang(jobdir, job)


def _orphan(jobdir: Path, job: Json) -> int:
    """Leaves a child of its own behind, which does not listen either."""
    script = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep({_FOREVER_S})"
    child = subprocess.Popen([sys.executable, "-c", script])
    (jobdir / "grandchild").write_text(str(child.pid), encoding="utf-8")
    return _hang(jobdir, job)


def _out_of_memory(jobdir: Path, job: Json) -> int:
    """Does not suffice with the whole batch; with half of it, it does."""
    if job["halvings"]:
        return _promote(jobdir, job)
    return _failed(jobdir, "out_of_memory", "no room for the batch")


def _always_out_of_memory(jobdir: Path, _job: Json) -> int:
    return _failed(jobdir, "out_of_memory", "no room for any batch")


def _garbage(jobdir: Path, _job: Json) -> int:
    (jobdir / "progress.json").write_bytes(b'{"step": [[')
    (jobdir / "result.json").write_bytes(b"\x00\xff not json")
    return 0


def _nothing(_jobdir: Path, _job: Json) -> int:
    return 0


def _no_adapter(jobdir: Path, job: Json) -> int:
    judged = _judged(jobdir, {"candidate": 1.0, "incumbent": 0.5, "none": 0.5})
    _write(jobdir / "result.json", _result(job, judged, "0" * 64))
    return 0


def _bad_adapter(jobdir: Path, job: Json) -> int:
    """An adapter whose bytes are not what its manifest says."""
    digest = adapter(jobdir, job)
    weights = jobdir / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\xc0\x7f")
    judged = _judged(jobdir, {"candidate": 1.0, "incumbent": 0.5, "none": 0.5})
    _write(jobdir / "result.json", _result(job, judged, digest))
    return 0


def _half_judged(jobdir: Path, job: Json) -> int:
    digest = adapter(jobdir, job)
    judged = _judged(jobdir, {"candidate": 1.0, "incumbent": 0.5, "none": 0.5})
    for judgements in judged.values():
        judgements.popitem()
    judged["candidate"] = {"edit_success-0000": 1}
    _write(jobdir / "result.json", _result(job, judged, digest))
    return 0


def _floods(jobdir: Path, _job: Json) -> int:
    """Writes until the limit on a file stops it."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    with (jobdir / "flood").open("wb") as file:
        while True:
            file.write(b"\0" * (1 << 20))
            file.flush()


BEHAVIOURS: Mapping[str, Callable[[Path, Json], int]] = {
    "promote": _promote,
    "worse": _worse,
    "none": _none,
    "slow": _slow,
    "crash": _crash,
    "abort": _abort,
    "killed": _killed,
    "hang": _hang,
    "deaf": _deaf,
    "orphan": _orphan,
    "out_of_memory": _out_of_memory,
    "always_out_of_memory": _always_out_of_memory,
    "garbage": _garbage,
    "nothing": _nothing,
    "no_adapter": _no_adapter,
    "bad_adapter": _bad_adapter,
    "half_judged": _half_judged,
    "floods": _floods,
}


def _done(jobdir: Path, job: Json, shares: Mapping[str, float]) -> int:
    progress(jobdir, "building", 1, 1)
    progress(jobdir, "training", 10, 10)
    digest = adapter(jobdir, job)
    progress(jobdir, "judging", 1, 1)
    _write(jobdir / "result.json", _result(job, _judged(jobdir, shares), digest))
    return 0


def _judged(jobdir: Path, shares: Mapping[str, float]) -> dict[str, dict[str, int]]:
    """Each arm right on its share of what is gained, and on all that is guarded."""
    rows = [json.loads(line) for line in (jobdir / "probes.jsonl").read_text("utf-8").splitlines()]
    ids = [(str(row["id"]), row["kind"] in ("edit_success", "generality", "portability")) for row in rows]
    return {
        arm: {
            name: int(not gained or number / max(len(ids), 1) % 0.1 < share * 0.1)
            for number, (name, gained) in enumerate(ids)
        }
        for arm, share in shares.items()
    }


def _result(job: Json, judged: Mapping[str, Mapping[str, int]], digest: str) -> Json:
    answered = {
        arm: judgements for arm, judgements in judged.items() if arm != "incumbent" or job["incumbent"]
    }
    return {
        "status": "done",
        "adapter": "adapter",
        "adapter_hash": digest,
        "judged": answered,
        "rows": 100,
        "data_hash": hashlib.sha256(b"stub").hexdigest(),
        "seconds": 0.0,
        "error": None,
    }


def _failed(jobdir: Path, kind: str, message: str) -> int:
    _write(jobdir / "result.json", {"status": "failed", "error": {"kind": kind, "message": message}})
    return 0


def _cancelled(jobdir: Path) -> None:
    _write(jobdir / "result.json", {"status": "cancelled", "error": None})
    os._exit(0)


def progress(jobdir: Path, phase: str, step: int, total: int) -> None:
    """What the daemon shows of a run."""
    row = {"phase": phase, "step": step, "total": total, "loss": 1.0, "rows_per_s": 10.0, "remaining_s": 1.0}
    _write(jobdir / "progress.json", {**row, "time": time.time()})


def adapter(jobdir: Path, job: Json) -> str:
    """A LoRA of rank 1 that changes nothing, with its manifest; returns the hash that names it."""
    directory = jobdir / "adapter"
    directory.mkdir()
    config = {
        "peft_type": "LORA",
        "r": 1,
        "lora_alpha": 1,
        "target_modules": ["q_proj"],
        # Two runs make two adapters.
        "revision": job["name"],
    }
    _write(directory / "adapter_config.json", config)
    (directory / "adapter_model.safetensors").write_bytes(_safetensors())
    files = {
        name: hashlib.sha256((directory / name).read_bytes()).hexdigest()
        for name in ("adapter_config.json", "adapter_model.safetensors")
    }
    facts = [json.loads(line) for line in (jobdir / "facts.jsonl").read_text("utf-8").splitlines()]
    manifest = {
        "id": job["name"],
        "base_fingerprint": job["base_fingerprint"],
        "files": files,
        "edit_ids": [fact["edit_id"] for fact in facts],
        "recipe": "stub",
        "seed": job["seed"],
        "epoch": job["epoch"],
    }
    _write(directory / "manifest.json", manifest)
    lines = "\n".join(f"{name} {digest}" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _safetensors() -> bytes:
    """Two tensors of four zeros and ones, written by hand: the format is a length, a header and the bytes."""
    prefix = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    header = {
        f"{prefix}A.weight": {"dtype": "F32", "shape": [1, 4], "data_offsets": [0, 16]},
        f"{prefix}B.weight": {"dtype": "F32", "shape": [4, 1], "data_offsets": [16, 32]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + struct.pack("<8f", *[1.0] * 4, *[0.0] * 4)


def _write(path: Path, value: object) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps(value), encoding="utf-8")
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
