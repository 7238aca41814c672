"""Each command of README.md and docs/ is understood by the real command line, or says what it needs.

Nothing is run but what only reads: the lines of "A first real use" are run in
`tests/integration/test_cli_end_to_end.py`.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from doc_blocks import PAGES, ROOT, blocks, inline_codes, shell_commands

from daemon.cli import exits
from daemon.cli.app import app
from daemon.config import load
from daemon.rpc import token_file
from lte_runtime.facts.events import EventLimits, decode
from lte_runtime.types import Position, RawRecord
from ops.bench.cli import ALONE, NAMES

# Placeholders that stand for a number or one of a few words; others are texts as any.
PLACEHOLDERS = {"ID": "1", "P": "0", "O": "0", "L+1": "1", "ARCH": "llama", "MODE": "batch", "NAME": "store"}
PROGRAMS = ("lte", "make", "python", "pytest", "source")
Parse = Callable[[list[str]], str]


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Parse:
    """What the command line says against these arguments of `lte`; empty when it would run them."""
    context = typer.Context.__mro__[1]
    monkeypatch.setattr(context, "invoke", lambda *_arguments, **_options: None)

    def run(arguments: list[str]) -> str:
        try:
            code = exits.guarded(lambda: app(args=arguments, prog_name="lte"))
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr().err
        return said if code else ""

    return run


def shown_commands() -> list[tuple[str, list[str], bool]]:
    """(page, words, complete): lines of blocks, and codes within the text, which may leave arguments out."""
    lines = [
        (block.page, words, True)
        for block in blocks()
        if block.is_shell and not block.needs
        for words in shell_commands(block.text)
    ]
    codes = [
        (page, words, False)
        for page, code in inline_codes()
        if re.match(r"(\w+=\S+ )*(lte|make|python|pytest) ", code)
        for words in shell_commands(code)
    ]
    return lines + codes


def without_environment(words: list[str]) -> list[str]:
    return words[1:] if "=" in words[0] else words


def alternatives(words: list[str]) -> list[list[str]]:
    """`bench a|b` as the two commands that it stands for."""
    variants: list[list[str]] = [[]]
    for word in words:
        choices = (
            word.split("|") if re.fullmatch(r"[a-z]+(\|[a-z]+)+", word) else [PLACEHOLDERS.get(word, word)]
        )
        variants = [[*variant, choice] for variant in variants for choice in choices]
    return variants


COMMANDS = [(page, without_environment(words), complete) for page, words, complete in shown_commands()]


def test_there_is_something_to_check() -> None:
    assert len(COMMANDS) > 100
    assert {words[0] for _, words, _ in COMMANDS} == set(PROGRAMS), "mark the block: <!-- needs: ... -->"


def test_the_command_line_understands_every_command(parse: Parse) -> None:
    faults = [
        f"{page}: {' '.join(words)}: {said}"
        for page, words, complete in COMMANDS
        if words[0] == "lte"
        for variant in alternatives(words)
        if (said := parse(until_a_pipe(variant[1:]))) and (complete or "Missing" not in said)
    ]
    assert faults == []


def until_a_pipe(words: list[str]) -> list[str]:
    return words[: next((at for at, word in enumerate(words) if word in ("|", ">", ">>")), len(words))]


@pytest.mark.parametrize(
    "line",
    ["ask --explian x", "edits histroy", "ingest skip --partition many", "bench store --slow", "nothing"],
)
def test_a_wrong_command_is_noticed(parse: Parse, line: str) -> None:
    said = parse(line.split())
    assert said
    assert "Missing" not in said


def test_targets_modules_and_tests_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for page, words, _ in COMMANDS:
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets, (page, words)
        if words[0] == "python":
            assert words[1] == "-m", (page, words)
            assert importlib.util.find_spec(words[2]), (page, words)
        if words[0] == "source":
            assert words[1:] == [".venv/bin/activate"], (page, words)
        if words[0] == "pytest":
            assert all((ROOT / word).exists() for word in words[1:]), (page, words)


def test_benchmarks_exist() -> None:
    named = {
        variant[2]
        for _, words, _ in COMMANDS
        if words[:2] == ["lte", "bench"]
        for variant in alternatives(words)
    }
    assert len(named) > 5
    assert named <= {*NAMES, *ALONE, "all"}


@pytest.mark.parametrize("arguments", [["--help"], ["config", "show"], ["config", "schema"]])
def test_commands_that_only_read_run(arguments: list[str], tmp_path: Path) -> None:
    ended = run("daemon", *arguments, directory=tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_the_schema_is_printed_as_the_page_says() -> None:
    ended = run("lte_runtime.facts.events", directory=ROOT)
    assert json.loads(ended.stdout) == json.loads((ROOT / "docs/event.schema.json").read_text("utf-8"))


def run(module: str, *arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=directory,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("block", [b for b in blocks() if b.language == "toml"], ids=lambda block: block.page)
def test_configurations_are_valid(block, tmp_path: Path) -> None:
    assert tomllib.loads(block.text)
    file = tmp_path / "lte.toml"
    file.write_text(block.text, "utf-8")
    if token_file.SECTION in block.text:
        assert token_file.read(file).all
    else:
        assert load(file, environ={}).settings


def test_events_are_taken() -> None:
    shown = [
        (block.page, json.loads(text))
        for block in blocks()
        if block.language in ("", "json") and block.text.startswith("{")
        for text in re.split(r"\n(?=\{)", block.text)
    ]
    events = [(page, event) for page, event in shown if "target" in event]
    assert {page for page, _ in events} >= {"README.md", "docs/events.md"}
    for _, event in events:
        record = RawRecord("lte.edits", Position("topic", 0, 0), None, json.dumps(event).encode(), (), 1)
        assert decode(record, EventLimits()).target == event["target"]


@pytest.mark.parametrize(
    "block", [b for b in blocks() if b.language == "python"], ids=lambda block: block.page
)
def test_programs_compile(block) -> None:
    compile(block.text, block.page, "exec")


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    unknown = [
        (block.page, block.text)
        for block in blocks()
        if not (block.is_shell or block.language in ("toml", "python", "json") or block.text.startswith("{"))
    ]
    assert unknown == []


def test_all_pages_are_read() -> None:
    assert {path.name for path in PAGES} >= {"README.md", "operations.md", "api.md", "evaluation.md"}
