"""What README.md, SECURITY.md and docs/*.md show: fenced blocks with markers, shell lines, inline code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/decisions").glob("*.md")),
    ROOT / "ops/RUNBOOK.md",
)
_FENCE = re.compile(
    r"(?:^<!-- needs: (?P<needs>.+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
_INLINE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
_WORDS_OF_A_SHELL = re.compile(r"[a-z][\w./-]*( |$)|[A-Z_]+=\S+ ")


class Block(NamedTuple):
    """A fenced block. `needs`: what it asks for that no test has, by the comment above it."""

    page: str
    language: str
    text: str
    needs: str

    @property
    def is_shell(self) -> bool:
        lines = self.text.splitlines()
        return self.language in ("bash", "sh", "console") or (
            not self.language and all(map(_WORDS_OF_A_SHELL.match, filter(None, lines)))
        )


def _page(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks() -> Iterator[Block]:
    for path in PAGES:
        for match in _FENCE.finditer(path.read_text("utf-8")):
            yield Block(_page(path), match["language"], match["text"], match["needs"] or "")


def inline_codes() -> Iterator[tuple[str, str]]:
    """(page, code) of what stands between single backticks."""
    for path in PAGES:
        for match in _INLINE.finditer(_FENCE.sub("", path.read_text("utf-8"))):
            yield _page(path), " ".join(match[1].split())


def shell_commands(text: str) -> list[list[str]]:
    """The words of each command, comments left out; commands of one line that are joined by && apart.

    In a session, commands are the lines that begin with `$ `; the others are what was printed.
    """
    commands = []
    lines = text.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in lines:
        words = shlex.split(line, comments=True)
        while "&&" in words:
            at = words.index("&&")
            commands.append(words[:at])
            words = words[at + 1 :]
        commands.append(words)
    return [words for words in commands if words]
