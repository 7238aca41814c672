"""From the settings to the parts of a daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config import load
from daemon.parts.memory import ingest_settings, memory_settings
from daemon.parts.realign import base_of, realigner_settings, runner_settings


def test_a_job_finds_models_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "encoder").mkdir()
    (tmp_path / "model").mkdir()
    environ = {"LTE_ENCODER__MODEL": "encoder", "LTE_MODEL__PATH": "model"}
    settings = load(environ=environ).settings
    assert realigner_settings(settings).neighbours == str(tmp_path / "encoder")
    assert base_of(settings, "b").path == str(tmp_path / "model")
    settings = load(environ={"LTE_ENCODER__MODEL": "some/id"}).settings
    assert realigner_settings(settings).neighbours == "some/id"


def test_the_command_alone_decides_where_a_job_runs() -> None:
    command = "sbatch --wait align.sbatch {jobdir}"
    for runner in ("local", "command"):
        environ = {"LTE_REALIGN__RUNNER": runner, "LTE_REALIGN__COMMAND": command}
        assert runner_settings(load(environ=environ).settings).command == command
        without = load(environ={"LTE_REALIGN__RUNNER": runner}).settings
        assert runner_settings(without).command is None


def test_rights_of_publishers_reach_the_decoder_and_the_memory() -> None:
    table = '{"hr": {"names": ["Acme"]}, "erp": ["prices"], "*": {"namespaces": ["default"]}}'
    settings = load(environ={"LTE_KAFKA__PUBLISHERS": table}).settings
    limits = ingest_settings(settings).limits
    assert limits.writers == {"hr": {"*"}, "erp": {"prices"}, "*": {"default"}}
    assert limits.owners.of_name("ACME") == {"hr"}
    assert memory_settings(settings).owners == limits.owners


def test_reserved_names_alone_limit_no_namespace() -> None:
    settings = load(environ={"LTE_KAFKA__PUBLISHERS": '{"hr": {"names": ["Acme"]}}'}).settings
    assert ingest_settings(settings).limits.writers == {}
