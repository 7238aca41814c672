"""`model.engine`: which engine the settings choose, and settings that contradict each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daemon.parts import models
from daemon.settings import Settings
from lte_runtime.errors import Refused
from tests.unit.answer.engine import tiny


def settings(**model: Any) -> Settings:
    return Settings.model_validate({"model": {"adapter": "none", "threads": 1, **model}})


@pytest.mark.parametrize(
    ("chosen", "runtime"),
    [
        ({}, "openvino/int8"),
        ({"engine": "openvino"}, "openvino/int8"),
        ({"engine": "openvino", "dtype": "float32"}, "openvino/float32"),
        ({"engine": "transformers", "dtype": "float32"}, "transformers/float32"),
        ({"dtype": "float32"}, "transformers/float32"),
        ({"adapter_mode": "unmerged", "dtype": "float32"}, "transformers/float32"),
    ],
)
def test_the_engine_of_the_settings_serves_and_says_so(
    tmp_path: Path, chosen: dict[str, Any], runtime: str
) -> None:
    configured = settings(path=str(tiny.save_model(tmp_path)), device="cpu", **chosen)
    engine = models.engine(configured)
    assert engine.runtime == runtime
    assert engine.describe()["engine"] == runtime.partition("/")[0]
    assert runtime.startswith(models.planned_runtime(configured, tmp_path))
    engine.close()


def test_a_shape_that_openvino_does_not_read_is_left_to_transformers(tmp_path: Path) -> None:
    directory = tiny.save_model(tmp_path, "gpt2")
    assert not models.runs_on_openvino(settings().model, directory)
    with pytest.raises(Refused, match="'int8' needs"):
        models.runs_on_openvino(settings(dtype="int8").model, directory)


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ({"engine": "transformers", "dtype": "int8"}, "needs model.engine = 'openvino'"),
        ({"engine": "openvino", "device": "cuda"}, "runs on the CPU"),
        ({"engine": "openvino", "adapter_mode": "unmerged"}, "merges adapters"),
        ({"engine": "openvino", "dtype": "bfloat16"}, "int8 or float32"),
    ],
)
def test_settings_that_contradict_the_engine_are_refused(
    tmp_path: Path, chosen: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Refused, match=reason):
        models.engine(settings(path=str(tmp_path), **chosen))


def test_a_job_trains_in_a_dtype_of_torch() -> None:
    assert models.training_dtype(settings(engine="openvino", dtype="int8")) == "auto"
    assert models.training_dtype(settings(dtype="float32")) == "float32"
