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

from lte_runtime.align import contract
from lte_runtime.align.contract import JobResult, JobSpec, Progress

# What a hung trainer does: nothing, for longer than anybody waits.
_FOREVER_S = 3600.0


def main(arguments: list[str]) -> int:
    """JOBDIR; exit status 0 whenever there is a result."""
    job = contract.read_job(Path(arguments[0]).absolute())
    behaviour = job.preset.partition(":")[2] or "promote"
    signal.signal(signal.SIGTERM, lambda *_: _cancelled(job))
    return BEHAVIOURS[behaviour](job)


def _promote(job: JobSpec) -> int:
    return _done(job, {"candidate": 1.0, "incumbent": 0.6, "none": 0.5})


def _worse(job: JobSpec) -> int:
    return _done(job, {"candidate": 0.6, "incumbent": 1.0, "none": 0.5})


def _none(job: JobSpec) -> int:
    return _done(job, {"candidate": 0.6, "incumbent": 0.5, "none": 1.0})


def _slow(job: JobSpec) -> int:
    """Trains for a few seconds, or until `go` appears beside it."""
    for step in range(100):
        _progress(job, "training", step, 100)
        if (job.job_dir / "go").exists():
            break
        time.sleep(0.1)
    return _promote(job)


def _crash(_job: JobSpec) -> int:
    os._exit(3)


def _abort(_job: JobSpec) -> int:
    os.abort()


def _killed(_job: JobSpec) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def _hang(job: JobSpec) -> int:
    _progress(job, "training", 1, 100)
    time.sleep(_FOREVER_S)
    return 0


def _deaf(job: JobSpec) -> int:
    """Hangs and does not listen."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return _hang(job)


def _orphan(job: JobSpec) -> int:
    """Leaves a child of its own behind, which does not listen either."""
    script = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep({_FOREVER_S})"
    child = subprocess.Popen([sys.executable, "-c", script])
    (job.job_dir / "grandchild").write_text(str(child.pid), encoding="utf-8")
    return _hang(job)


def _out_of_memory(job: JobSpec) -> int:
    """Does not suffice with the whole batch; with half of it, it does."""
    if job.halvings:
        return _promote(job)
    return _failed(job, "out_of_memory", "no room for the batch")


def _always_out_of_memory(job: JobSpec) -> int:
    return _failed(job, "out_of_memory", "no room for any batch")


def _garbage(job: JobSpec) -> int:
    (job.job_dir / contract.PROGRESS).write_bytes(b'{"step": [[')
    (job.job_dir / contract.RESULT).write_bytes(b"\x00\xff not json")
    return 0


def _nothing(_job: JobSpec) -> int:
    return 0


def _no_adapter(job: JobSpec) -> int:
    judged = _judged(job, {"candidate": 1.0, "incumbent": 0.5, "none": 0.5})
    return _write_judged(job, judged, "0" * 64)


def _bad_adapter(job: JobSpec) -> int:
    """An adapter whose bytes are not what its manifest says."""
    digest = adapter(job)
    weights = job.job_dir / contract.ADAPTER / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\xc0\x7f")
    judged = _judged(job, {"candidate": 1.0, "incumbent": 0.5, "none": 0.5})
    return _write_judged(job, judged, digest)


def _half_judged(job: JobSpec) -> int:
    digest = adapter(job)
    judged = _judged(job, {"candidate": 1.0, "incumbent": 0.5, "none": 0.5})
    for judgements in judged.values():
        judgements.popitem()
    judged["candidate"] = {"edit_success-0000": 1}
    return _write_judged(job, judged, digest)


def _floods(job: JobSpec) -> int:
    """Writes until the limit on a file stops it."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    with (job.job_dir / "flood").open("wb") as file:
        while True:
            file.write(b"\0" * (1 << 20))
            file.flush()


BEHAVIOURS: Mapping[str, Callable[[JobSpec], int]] = {
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


def _done(job: JobSpec, shares: Mapping[str, float]) -> int:
    _progress(job, "building", 1, 1)
    _progress(job, "training", 10, 10)
    digest = adapter(job)
    _progress(job, "judging", 1, 1)
    return _write_judged(job, _judged(job, shares), digest)


def _judged(job: JobSpec, shares: Mapping[str, float]) -> dict[str, dict[str, int]]:
    """Each arm right on its share of what is gained, and on all that is guarded."""
    probes = contract.read_probes(job.probes)
    ids = [(probe.id, probe.kind in ("edit_success", "generality", "portability")) for probe in probes]
    return {
        arm: {
            name: int(not gained or number / max(len(ids), 1) % 0.1 < share * 0.1)
            for number, (name, gained) in enumerate(ids)
        }
        for arm, share in shares.items()
    }


def _write_judged(job: JobSpec, judged: Mapping[str, Mapping[str, int]], digest: str) -> int:
    answered = judged if job.incumbent else {**judged, "incumbent": {}}
    result = JobResult(
        contract.DONE,
        adapter=contract.ADAPTER,
        adapter_hash=digest,
        judged=answered,
        rows=100,
        data_hash=hashlib.sha256(b"stub").hexdigest(),
        updates=10,
        loss=1.0,
    )
    contract.write_result(job.job_dir, result)
    return 0


def _failed(job: JobSpec, kind: str, message: str) -> int:
    contract.write_result(job.job_dir, JobResult.failed(kind, message))
    return 0


def _cancelled(job: JobSpec) -> None:
    contract.write_result(job.job_dir, JobResult(contract.CANCELLED))
    os._exit(0)


def _progress(job: JobSpec, phase: str, step: int, total: int) -> None:
    contract.write_progress(job.job_dir, Progress(phase, step, total, 1.0, 10.0, 1.0))


def adapter(job: JobSpec) -> str:
    """A LoRA of rank 1 that changes nothing, with its manifest; returns the hash that names it."""
    directory = job.job_dir / contract.ADAPTER
    directory.mkdir()
    config = {
        "peft_type": "LORA",
        "r": 1,
        "lora_alpha": 1,
        "target_modules": ["q_proj"],
        # Two runs make two adapters.
        "revision": job.name,
    }
    contract.write_json(directory / "adapter_config.json", config)
    (directory / "adapter_model.safetensors").write_bytes(_safetensors())
    files = {
        name: hashlib.sha256((directory / name).read_bytes()).hexdigest()
        for name in ("adapter_config.json", "adapter_model.safetensors")
    }
    facts = [json.loads(line) for line in job.facts.read_text("utf-8").splitlines()]
    manifest = {
        "id": job.name,
        "base_fingerprint": job.base_fingerprint,
        "files": files,
        "edit_ids": [fact["edit_id"] for fact in facts],
        "recipe": "stub",
        "seed": job.seed,
        "epoch": job.epoch,
    }
    contract.write_json(directory / "manifest.json", manifest)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
