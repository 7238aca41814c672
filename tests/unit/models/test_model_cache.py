"""The cache of converted models: made once, made anew when it is torn or foreign, never half made."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lte_runtime import sealed
from lte_runtime.errors import Refused
from lte_runtime.models import cache as cache_module
from lte_runtime.models.cache import GgufSource, ModelCache, default_directory
from lte_runtime.models.conversion import run_conversion
from lte_runtime.progress import Progress
from tests.unit.models.stand_in import SOURCE, WEIGHTS, Conversion, gguf


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "below" / "cache")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return gguf(tmp_path)


def converted(cache: ModelCache, file: Path, source: GgufSource = SOURCE) -> tuple[Path, int]:
    """The folder, and how many conversions it took."""
    conversion = Conversion()
    folder = cache.convert(source, lambda: file, run=conversion)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    return folder, len(conversion.runs)


def test_the_default_place_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert default_directory() == Path("/elsewhere/lte-daemon/models")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/ann")
    assert ModelCache.at(None).directory == Path("/home/ann/.cache/lte-daemon/models")


def test_a_model_is_converted_once_and_its_file_is_not_needed_any_more(cache: ModelCache, file: Path) -> None:
    folder, conversions = converted(cache, file)
    assert conversions == 1
    assert folder.name == f"tiny.Q4_1-{SOURCE.sha256[:12]}"
    file.unlink()
    assert converted(cache, file) == (folder, 0)


def test_progress_is_passed_on(cache: ModelCache, file: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    cache.convert(SOURCE, lambda: file, lambda *step: steps.append(step), run=Conversion())
    assert steps == [("reading the weights", 1, 3)]


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def _change(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")


def _without_manifest(folder: Path) -> None:
    (folder / sealed.MANIFEST).unlink()


def _half_a_manifest(folder: Path) -> None:
    manifest = folder / sealed.MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:40])


def _with_a_file_more(folder: Path) -> None:
    (folder / "modeling_tiny.py").write_text("import os\n", encoding="utf-8")


def _a_link_for_the_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.rename(folder.parent / "elsewhere")
    weights.symlink_to(folder.parent / "elsewhere")


def _of_other_making(folder: Path) -> None:
    """A sound folder, but not of this file."""
    (folder / sealed.MANIFEST).unlink()
    sealed.seal(folder, {"source_sha256": "1" * 64, "recipe": cache_module.RECIPE})


def _of_an_older_recipe(folder: Path) -> None:
    about = dict(sealed.about(folder))
    (folder / sealed.MANIFEST).unlink()
    sealed.seal(folder, {**about, "recipe": 0})


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        _change,
        _without_manifest,
        _half_a_manifest,
        _with_a_file_more,
        _a_link_for_the_weights,
        _of_other_making,
        _of_an_older_recipe,
    ],
)
def test_a_torn_or_foreign_folder_is_made_anew(
    cache: ModelCache, file: Path, damage: Callable[[Path], None]
) -> None:
    folder, _ = converted(cache, file)
    damage(folder)
    assert cache.converted(SOURCE) is None
    assert converted(cache, file) == (folder, 1)
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        sealed.MANIFEST,
    }


def test_what_a_killed_conversion_left_is_removed(cache: ModelCache, file: Path) -> None:
    left = cache.directory / f"{SOURCE.folder_name}.tmp"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    converted(cache, file)
    assert not left.exists()


@pytest.mark.parametrize("fault", [Refused("no such shape"), KeyboardInterrupt()])
def test_a_conversion_that_ends_early_leaves_nothing(
    cache: ModelCache, file: Path, fault: BaseException
) -> None:
    with pytest.raises(type(fault)):
        cache.convert(SOURCE, lambda: file, run=Conversion(fails=fault))
    assert [path.name for path in cache.directory.iterdir()] == [f"{SOURCE.folder_name}.lock"]
    assert converted(cache, file)[1] == 1


def test_other_weights_than_the_adapters_are_made_for_are_refused(cache: ModelCache, file: Path) -> None:
    source = GgufSource(SOURCE.file_name, SOURCE.sha256, weights_sha256="2" * 64)
    with pytest.raises(Refused, match="other weights"):
        cache.convert(source, lambda: file, run=Conversion())
    assert cache.converted(source) is None


def test_of_two_converters_one_waits_and_takes_what_the_other_made(cache: ModelCache, file: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()
    steps: list[str] = []

    def slow(gguf_file: Path, folder: Path, progress: Progress) -> Mapping[str, str]:
        inside.set()
        assert go_on.wait(60)
        return Conversion()(gguf_file, folder, progress)

    def waits(what: str, _done: int, _total: int) -> None:
        steps.append(what)
        go_on.set()

    second = Conversion()
    first = threading.Thread(target=lambda: cache.convert(SOURCE, lambda: file, run=slow))
    first.start()
    assert inside.wait(60)
    folder = cache.convert(SOURCE, lambda: file, waits, run=second)
    first.join(60)
    assert steps == ["waiting for another process that prepares it"]
    assert (second.runs, folder) == ([], cache.folder(SOURCE))


CONVERT = """
import sys, time
from pathlib import Path
from lte_runtime.models.cache import ModelCache
from tests.unit.models.stand_in import SOURCE, Conversion
conversion = Conversion()
ModelCache(Path(sys.argv[1])).convert(SOURCE, lambda: Path(sys.argv[2]), run=conversion)
print(len(conversion.runs))
"""


def test_processes_that_start_together_convert_once(cache: ModelCache, file: Path) -> None:
    command = [sys.executable, "-c", CONVERT, str(cache.directory), str(file)]
    root = Path(__file__).parents[3]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) for _ in range(4)]
    counts = sorted(int(child.communicate(timeout=120)[0]) for child in children)
    assert counts == [0, 0, 0, 1]


@pytest.fixture
def read_only(disk: Path) -> Callable[[], None]:
    return lambda: subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True) and None


def test_a_complete_cache_may_be_read_only(disk: Path, file: Path, read_only: Callable[[], None]) -> None:
    cache = ModelCache(disk / "cache")
    folder, _ = converted(cache, file)
    read_only()
    assert converted(cache, file) == (folder, 0)


@pytest.mark.parametrize("state", ["empty", "torn"])
def test_an_incomplete_read_only_cache_says_what_to_do(
    disk: Path, file: Path, read_only: Callable[[], None], state: str
) -> None:
    cache = ModelCache(disk / "cache")
    if state == "torn":
        _cut(converted(cache, file)[0])
    read_only()
    with pytest.raises(Refused, match=r"Read-only file system.*set model\.cache"):
        cache.convert(SOURCE, lambda: file, run=Conversion())


def test_a_full_disk_is_told(disk: Path, file: Path) -> None:
    def large(_: Path, folder: Path, __: Progress) -> Mapping[str, str]:
        (folder / "model.safetensors").write_bytes(bytes(2 << 20))
        return {}

    with pytest.raises(Refused, match=r"No space left.*free some space"):
        ModelCache(disk / "cache").convert(SOURCE, lambda: file, run=large)
    assert list((disk / "cache").glob("*.tmp")) == []


def test_the_files_get_the_rights_of_the_cache(cache: ModelCache, file: Path) -> None:
    cache.directory.mkdir(parents=True, mode=0o700)
    folder, _ = converted(cache, file)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_manifest_says_what_the_files_were_made_of(cache: ModelCache, file: Path) -> None:
    folder, _ = converted(cache, file)
    about = json.loads((folder / sealed.MANIFEST).read_bytes())["body"]["about"]
    assert about == {
        "source": "tiny.Q4_1.gguf",
        "source_sha256": SOURCE.sha256,
        "source_bytes": file.stat().st_size,
        "recipe": cache_module.RECIPE,
        "transformers": "0",
    }


@pytest.mark.model
@pytest.mark.slow
def test_a_file_that_is_no_model_is_refused_with_the_reason(cache: ModelCache, tmp_path: Path) -> None:
    file = gguf(tmp_path)
    with pytest.raises(Refused, match=r"tiny\.Q4_1\.gguf cannot be converted: \w+"):
        cache.convert(GgufSource(file.name, SOURCE.sha256), lambda: file, run=run_conversion)
    assert list(cache.directory.glob("*.tmp")) == []
