"""Names in README.md and docs/ exist: files, modules, settings, environment variables, metrics, links."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from doc_blocks import PAGES, ROOT

from daemon import config

SECTIONS = sorted({name.partition(".")[0] for name in config.known_names() if "." in name})
SETTING = re.compile(rf"(?<![\w/.-])(?:{'|'.join(SECTIONS)})\.([a-z_]+)\b(?![/(])")
# What makes `gate.json` a file and no setting.
SUFFIXES = ("py", "md", "json", "jsonl", "sh")
ROOMS = r"(?:lte_runtime|daemon|ops|tests|docs)"
SEARCHED = ("", "lte_runtime/", "lte_runtime/answer/", "daemon/", "tests/unit/", "tests/unit/memory/")

CHECKED_PAGES = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def codes(page: Path) -> Iterator[str]:
    yield from re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text_of(page))


@CHECKED_PAGES
def test_settings_exist(page: Path) -> None:
    known = config.known_names().keys() | config.DEPRECATED.keys()
    named = {match[0] for match in SETTING.finditer(text_of(page)) if match[1] not in SUFFIXES}
    assert named <= known


@CHECKED_PAGES
def test_environment_variables_exist(page: Path) -> None:
    named = set(re.findall(r"\bLTE_[A-Z_]+[A-Z]\b", text_of(page))) - {"LTE_SECTION__FIELD", "LTE_LONG"}
    config.refuse_unknown_environment(dict.fromkeys(named, ""))


@CHECKED_PAGES
def test_metrics_exist(page: Path) -> None:
    source = (ROOT / "daemon/metrics.py").read_text("utf-8") + (ROOT / "daemon/readings.py").read_text(
        "utf-8"
    )
    named = set(re.findall(r"(?<![\w/.])lte_[a-z_]+\b(?![/.\w-])", text_of(page))) - {"lte_runtime"}
    assert {name for name in named if name.removesuffix("_total") not in source} == set()


@CHECKED_PAGES
def test_files_exist(page: Path) -> None:
    """Names with a slash that end in .py or begin with a room; `file.py: name` and patterns too."""
    named = {
        match[1]
        for code in codes(page)
        if (match := re.match(rf"((?:{ROOMS}/[\w./*-]*)|(?:[\w-]+/)*[\w/*-]+\.py)(?::|::|$)", code))
        and "/" in match[1]
    }
    missing = {name for name in named if not any(any(ROOT.glob(below + name)) for below in SEARCHED)}
    assert missing == set()


@CHECKED_PAGES
def test_modules_exist(page: Path) -> None:
    named = {
        match[0] for code in codes(page) if (match := re.match(r"(lte_runtime|daemon|ops)(\.\w+)+", code))
    }
    assert {name for name in named if not _found(name)} == set()


def _found(name: str) -> bool:
    """A module, or a name in one."""
    parent, _, attribute = name.rpartition(".")
    try:
        if importlib.util.find_spec(name):
            return True
    except ModuleNotFoundError:
        pass
    spec = importlib.util.find_spec(parent)
    return bool(spec and spec.origin and attribute in Path(spec.origin).read_text("utf-8"))


@CHECKED_PAGES
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)", text_of(page))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_decisions_are_numbered_without_a_gap() -> None:
    files = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [int(path.name[:3]) for path in files] == list(range(1, len(files) + 1))
    assert all(text_of(path).startswith(f"# {path.name[:3]}: ") for path in files)


def test_decisions_that_the_code_names_exist() -> None:
    numbers = {path.name[:3] for path in (ROOT / "docs/decisions").glob("*.md")}
    sources = [
        *(ROOT / "lte_runtime").rglob("*.py"),
        *(ROOT / "daemon").rglob("*.py"),
        *(ROOT / "ops").rglob("*.py"),
    ]
    sources += [*PAGES, *(ROOT / "lte_runtime").rglob("*.md")]
    named = {
        number
        for path in sources
        for number in re.findall(r"decisions?[ /](0\d\d)\b", path.read_text("utf-8"))
    }
    assert len(named) > 3
    assert named <= numbers
