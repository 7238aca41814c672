"""A job directory from start to result: what it writes, how it fails, how it goes on after a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lte_runtime.align import contract
from lte_runtime.align.contract import Progress
from lte_runtime.align.data import dataset
from lte_runtime.align.job import __main__ as job
from lte_runtime.align.job import reporting, train, work
from lte_runtime.align.job.reporting import Signals
from lte_runtime.answer.engine.files import base_fingerprint, verify_adapter
from lte_runtime.answer.engine.vllm.greedy_answers import recorded
from tests.unit.align import jobs
from tests.unit.answer.engine import tiny

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("base"), chat=True)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As the job's process has it: sums in another order would give another adapter."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_job_ends_with_an_adapter_and_every_probe_judged(base: Path, tmp_path: Path) -> None:
    folder = jobs.write(tmp_path / "job", base)
    phases: list[str] = []
    result = work.run(folder, Signals(), lambda shown: phases.append(shown.phase))
    assert result.status == "done", result
    assert contract.read_result(folder) == result
    assert list(dict.fromkeys(phases)) == ["building", "training", "judging"]
    probes = {"p0", "p1", "p2", "p3", "l"}
    assert result.judged["candidate"].keys() == result.judged["none"].keys() == probes
    assert set(result.judged["none"].values()) <= {0, 1}
    assert result.judged["none"]["l"] == 1
    assert result.judged["incumbent"] == {}
    made = verify_adapter(folder / "adapter", base_fingerprint(base))
    assert made.ref.id == "align-000002"
    assert made.ref.sha256 == result.adapter_hash
    manifest = json.loads((folder / "adapter/manifest.json").read_text())
    assert manifest["data_hash"] == result.data_hash
    assert manifest["epoch"] == 7
    arms = [recorded(manifest, arm) for arm in ("base", "adapter")]
    assert [len(arm) for arm in arms] == [8, 8]
    assert arms[0] != arms[1]
    assert manifest["scores"].keys() == {"candidate", "none"}
    assert set(manifest["edit_ids"]) <= {f"edit-{n}" for n in range(12)}


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        ({"preset": "huge"}, "data", "no preset"),
        ({"facts": "absent.jsonl"}, "data", "absent.jsonl"),
        ({"base_fingerprint": "0" * 64}, "data", "fingerprint"),
        ({"deadline_s": 0.0}, "deadline", "deadline"),
        ({"name": "../x"}, "data", "adapter id"),
    ],
)
def test_a_job_that_cannot_be_done_says_why(
    base: Path, tmp_path: Path, said: dict[str, object], kind: str, told: str
) -> None:
    folder = jobs.write(tmp_path / "job", base, **said)
    result = work.run(folder, Signals())
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.kind == kind
    assert told in result.error.message
    assert contract.read_result(folder) == result
    assert not (folder / "adapter").exists()


def test_a_cancelled_job_says_so_and_goes_on_later_to_the_same_loss(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "_QUIET_S", 0.0)  # every update is told, however fast the machine is
    whole = work.run(jobs.write(tmp_path / "whole", base), Signals())
    folder, signals = jobs.write(tmp_path / "cut", base), Signals()

    def stop(shown: Progress) -> None:
        signals.cancelled = shown.phase == "training" and shown.step >= 3

    cut = work.run(folder, signals, stop)
    assert (cut.status, cut.error) == ("cancelled", None)
    assert not (folder / "adapter").exists()
    first: list[int] = []
    resumed = work.run(folder, Signals(), lambda shown: _step(shown, first))
    assert first[0] > 3
    assert resumed.data_hash == whole.data_hash
    assert resumed.loss == pytest.approx(whole.loss, rel=1e-6)
    assert resumed.adapter_hash == whole.adapter_hash


def _step(shown: Progress, into: list[int]) -> None:
    if shown.phase == "training":
        into.append(shown.step)


class _Short:
    """Memory for at most `enough` rows at a time."""

    def __init__(self, enough: int) -> None:
        self.enough, self.loss = enough, train.weighted_loss

    def __call__(self, model: Any, rows: Any, *weights: float) -> Any:
        if len(rows) > self.enough:
            raise torch.OutOfMemoryError("no room")
        return self.loss(model, rows, *weights)


def test_out_of_memory_halves_the_tokens_once(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"batch": 12, "budget": 1500, "held_out": 0.0}
    monkeypatch.setattr(train, "weighted_loss", _Short(6))
    result = work.run(jobs.write(tmp_path / "job", base, changes), Signals())
    assert result.status == "done", result
    made = json.loads((tmp_path / "job/adapter/manifest.json").read_text())
    assert made["training"]["halvings"] == 1
    monkeypatch.setattr(train, "weighted_loss", _Short(0))
    result = work.run(jobs.write(tmp_path / "none", base, changes), Signals())
    assert (result.status, result.error and result.error.kind) == ("failed", "out_of_memory")


def test_an_incumbent_is_judged_and_started_from_with_its_edits(base: Path, tmp_path: Path) -> None:
    incumbent = tiny.save_adapter(tmp_path / "incumbent", base)
    tiny.write_manifest(incumbent, base_fingerprint(base), edit_ids=["old-1"])
    folder = jobs.write(tmp_path / "job", base, {"warm_start": True}, incumbent=str(incumbent))
    result = work.run(folder, Signals())
    assert result.status == "done", result
    assert result.judged["incumbent"].keys() == result.judged["candidate"].keys()
    manifest = json.loads((folder / "adapter/manifest.json").read_text())
    assert manifest["training"]["warm_start"] == "incumbent"
    assert "old-1" in manifest["edit_ids"]


def test_no_row_asks_a_probes_question(base: Path, tmp_path: Path) -> None:
    folder = jobs.write(tmp_path / "job", base, {"cases": 120})
    asked = {probe.question for probe in contract.read_probes(folder / "probes.jsonl")}
    signals = Signals()

    def stop(shown: Progress) -> None:
        signals.cancelled = shown.phase == "training"

    work.run(folder, signals, stop)
    found = dataset.read_rows(folder / "data")
    assert found is not None
    assert found[1]["dropped"]["probe"] > 0
    assert not {row.question for row in found[0]} & asked


@pytest.mark.slow
@pytest.mark.timeout(900)  # starts processes that import torch, on a machine that may be busy
def test_a_killed_process_goes_on_to_the_same_final_loss(base: Path, tmp_path: Path) -> None:
    """SIGKILL between two updates; the checkpoint that was being written then, if any, is not used."""
    changes = {"cases": 40, "every": 2}
    whole = work.run(jobs.write(tmp_path / "whole", base, changes), Signals())
    folder = jobs.write(tmp_path / "cut", base, changes)
    child = subprocess.Popen([sys.executable, "-m", "lte_runtime.align.job", str(folder)], cwd=ROOT)
    while child.poll() is None and not list(folder.glob(f"checkpoints/*/{train.FINISHED}")):
        time.sleep(0.01)
    child.kill()
    assert child.wait() == -signal.SIGKILL, "it was done before it could be killed"
    assert not (folder / "result.json").exists()
    torn = folder / "checkpoints/checkpoint-999"
    torn.mkdir()
    first: list[int] = []
    resumed = work.run(folder, Signals(), lambda shown: _step(shown, first))
    assert first[0] > 1
    assert not torn.exists()
    assert resumed.loss == pytest.approx(whole.loss, rel=1e-6)
    assert resumed.adapter_hash == whole.adapter_hash


@pytest.mark.slow
@pytest.mark.timeout(900)  # starts processes that import torch, on a machine that may be busy
def test_two_processes_under_torchrun_train_one_adapter(base: Path, tmp_path: Path) -> None:
    """gloo on the CPU; the preset's number of processes starts them. The loss is that of one process."""
    changes: dict[str, Any] = {"cases": 16, "held_out": 0.2}
    alone = work.run(jobs.write(tmp_path / "alone", base, changes), Signals())
    folder = jobs.write(tmp_path / "both", base, {**changes, "processes": 2})
    command = [sys.executable, "-m", "lte_runtime.align.job", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = contract.read_result(folder)
    assert result is not None
    assert result.status == "done", done.stderr
    assert result.updates == alone.updates
    assert result.loss == pytest.approx(alone.loss, rel=1e-3)


@pytest.mark.parametrize(("architecture", "chat"), [("gpt2", False), ("qwen2", True), ("gpt_neox", False)])
def test_any_causal_model_is_aligned(architecture: str, chat: bool, tmp_path: Path) -> None:
    base = tiny.save_model(tmp_path / "base", architecture, chat=chat)
    folder = jobs.write(tmp_path / "job", base, {"cases": 16, "every": 50, "max_tokens": 200})
    result = work.run(folder, Signals())
    assert result.status == "done", result
    assert verify_adapter(folder / "adapter", base_fingerprint(base))
    assert len(result.judged["candidate"]) == 5


def test_the_process_takes_one_directory(capsys: pytest.CaptureFixture[str]) -> None:
    assert job.main([]) == job.main(["--help"]) == 2
    assert "JOBDIR" in capsys.readouterr().err
