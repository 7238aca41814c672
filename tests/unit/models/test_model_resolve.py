"""What `model.path` may be, and that the catalogue agrees with what the project installs."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from real_parts import missing_part

from lte_runtime.errors import Refused
from lte_runtime.models import resolve
from lte_runtime.models.cache import ModelCache
from lte_runtime.models.catalogue import CATALOGUE, SMOLLM2
from lte_runtime.models.fetch import fetch
from lte_runtime.models.resolve import base_model, shipped_adapter
from tests.unit.models.stand_in import SOURCE, TINY, Conversion, gguf

ROOT = Path(__file__).parents[3]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelCache:
    """A cache with a converted model of the catalogue, whose conversion needs no library."""
    monkeypatch.setattr(resolve, "CATALOGUE", {TINY.name: TINY})
    cache = ModelCache(tmp_path / "cache")
    file = fetch(TINY, cache, gguf(tmp_path))
    cache.convert(SOURCE, lambda: file, run=Conversion())
    return cache


def test_a_catalogue_model_is_an_absolute_directory(cache: ModelCache) -> None:
    assert base_model("tiny", cache.directory) == str(cache.folder(SOURCE).absolute())


def test_a_gguf_file_shares_its_conversion_with_the_catalogue(cache: ModelCache, tmp_path: Path) -> None:
    assert base_model(str(tmp_path / "tiny.Q4_1.gguf"), cache.directory) == base_model(
        "tiny", cache.directory
    )


def test_a_gguf_file_that_is_not_there_is_said(cache: ModelCache, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"gone\.gguf cannot be read"):
        base_model(str(tmp_path / "gone.gguf"), cache.directory)


def test_other_paths_stay_what_they_are(
    cache: ModelCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("odd.gguf").mkdir()
    for path in ("odd.gguf", "org/name", "stub:0.1"):
        assert base_model(path, cache.directory) == path


@pytest.mark.parametrize("name", ["embedded", "embedded-qwen2"])
def test_a_model_that_no_longer_ships_is_refused_with_what_to_set(name: str) -> None:
    with pytest.raises(Refused, match=r"no longer ships: set model\.path to smollm2"):
        base_model(name)


def test_a_catalogue_model_has_the_adapter_that_ships_for_it(
    cache: ModelCache,  # noqa: ARG001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resolve, "_SHIPPED_ADAPTERS", tmp_path)
    assert shipped_adapter("tiny") is None
    adapter = tmp_path / "tiny" / "adapters" / "align-000001"
    adapter.mkdir(parents=True)
    assert shipped_adapter("tiny") == adapter
    assert shipped_adapter("org/name") is None


def test_the_catalogue_names_the_locked_package() -> None:
    locked = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))["package"]
    for model in CATALOGUE.values():
        (package,) = (entry for entry in locked if entry["name"] == model.distribution)
        assert package["version"] == model.version
        assert [wheel["hash"] for wheel in package["wheels"]] == [f"sha256:{model.wheel_sha256}"]


def test_the_package_is_a_default_group_without_what_it_requires() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["dependency-groups"]["model"] == [SMOLLM2.requirement]
    assert "model" in project["tool"]["uv"]["default-groups"]
    (metadata,) = project["tool"]["uv"]["dependency-metadata"]
    assert metadata == {"name": SMOLLM2.distribution, "version": SMOLLM2.version, "requires-dist": []}


@pytest.mark.slow
def test_the_built_wheel_does_not_require_the_package(tmp_path: Path) -> None:
    uv = shutil.which("uv") or str(ROOT / ".cache" / "tools" / "bin" / "uv")
    if not Path(uv).exists():
        missing_part("uv is needed to build the wheel")
    command = [uv, "build", "--wheel", "-q", "-o", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=240)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(wheel.read(name).decode())
    required = [line.lower() for line in metadata.get_all("Requires-Dist", [])]
    assert any(line.startswith("gguf") for line in required)
    assert [line for line in required if "smollm2" in line or "llama" in line] == []
