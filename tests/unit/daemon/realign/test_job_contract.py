"""One contract of jobs: the daemon with the stub's child and the command line with a real one write alike."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from daemon.cli import exits
from daemon.cli.app import app
from daemon.realign.realigner import Realigner
from lte_runtime.align.runs import RunState, Trigger
from tests.unit.align.jobs import SMALL
from tests.unit.answer.engine import tiny
from tests.unit.daemon.realign.test_realign import House, chosen, ended, fact

ROOT = Path(__file__).resolve().parents[4]
DEADLINE_S = 600.0
FILES = ("job.json", "progress.json", "result.json", "facts.jsonl", "anchor.jsonl", "probes.jsonl")


def by_the_daemon(directory: Path, anchor: Path) -> Path:
    """The job directory of a run with the stub's child."""
    house = House(directory)
    try:
        settings = chosen("promote", changes=SMALL, deadline_s=DEADLINE_S, anchor_file=anchor)
        realigner = house.start(Realigner(directory / "realign", house.parts(), settings))
        run = ended(realigner, realigner.trigger(Trigger.OPERATOR, ["a test"]))
        assert run.state is RunState.DONE, run.message
        return realigner.job_dir(run.id)
    finally:
        house.close()


def by_the_command_line(directory: Path, anchor: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The job directory of `lte align train` on a tiny random model."""
    facts, job_dir = directory / "facts.jsonl", directory / "job"
    facts.write_text("".join(json.dumps({"id": f"e{n}", **fact(n)}) + "\n" for n in range(90)))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("LTE_ENCODER__MODEL", "stub")
    monkeypatch.setenv("LTE_MODEL__PATH", str(tiny.save_model(directory / "base")))
    monkeypatch.setenv("LTE_MODEL__DEVICE", "cpu")
    changes = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    arguments = ["--facts", facts, "--anchor", anchor, "--deadline", DEADLINE_S, "--out", job_dir, *changes]
    with pytest.raises(SystemExit) as end:
        exits.guarded(lambda: app(args=["align", "train", *map(str, arguments)], prog_name="lte"))
    assert not end.value.code
    return job_dir


def objects(path: Path) -> Iterable[Mapping[str, Any]]:
    text = path.read_text("utf-8")
    return map(json.loads, text.splitlines()) if path.suffix == ".jsonl" else [json.loads(text)]


def types(value: object, name: str = "") -> Iterable[tuple[str, str]]:
    """Dotted name and type of all parts; the keys of `judged` below its arms are the probes' ids."""
    yield name, type(value).__name__
    if isinstance(value, dict):
        for key, part in value.items():
            yield from types(part, f"{name}.*" if name.startswith("judged.") else f"{name}.{key}".strip("."))
    if isinstance(value, list):
        for part in value:
            yield from types(part, f"{name}[]")


def types_in(job_dir: Path, file: str) -> dict[str, set[str]]:
    """What is null says nothing about the type."""
    names: dict[str, set[str]] = defaultdict(set)
    for value in objects(job_dir / file):
        for name, kind in types(value):
            names[name] |= {kind} - {"NoneType"}
    return names


@pytest.mark.slow
@pytest.mark.timeout(900)  # starts a process that imports torch, on a machine that may be busy
def test_daemon_and_command_line_write_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor = tmp_path / "own.jsonl"
    anchor.write_text(json.dumps({"edit_id": "a1", "subject": "Quay", "relation": "owner", "target": "Bo"}))
    for name in ("daemon", "cli"):
        (tmp_path / name).mkdir()
    daemon = by_the_daemon(tmp_path / "daemon", anchor)
    cli = by_the_command_line(tmp_path / "cli", anchor, monkeypatch)
    for file in FILES:
        of_daemon, of_cli = types_in(daemon, file), types_in(cli, file)
        assert of_daemon.keys() == of_cli.keys(), file
        mixed = {name: of_daemon[name] | of_cli[name] for name in of_daemon}
        assert all(len(kinds) <= 1 for kinds in mixed.values()), (file, mixed)
    kinds = [{probe["kind"] for probe in objects(job_dir / "probes.jsonl")} for job_dir in (daemon, cli)]
    assert kinds[0] == kinds[1] >= {"edit_success", "locality", "general", "safety"}
    assert [path.name for path in (*daemon.glob(".*"), *cli.glob(".*"))] == []
