"""No word of a language decides in the rooms that read facts and questions: such words stand in templates."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "lte_runtime"
ROOMS = ("facts", "names", "index", "answer")
COLLECTIONS = ("set", "frozenset")
WORD = re.compile(r"[^\W\d_]{2,}")
# What is left of a regular expression when its syntax is taken out: escapes, classes, names of groups.
SYNTAX = re.compile(
    r"\\[pPN]\{[^}]*\}|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\.|\[[^\]]*\]|\(\?P<\w+>|\(\?[a-zA-Z]+[:)]"
)
# Sets of names that code is written in or files have, not of words that people write.
NO_LANGUAGE = {
    "lte_runtime/answer/encoder/",  # names of architectures, poolings and files
    "lte_runtime/answer/engine/",  # names of tensors and of files
    "lte_runtime/facts/table_changes.py",  # fields of change records
    "lte_runtime/facts/wire.py",  # headers
    "lte_runtime/index/snapshot.py",  # names of files
}


def texts(node: ast.AST) -> Iterator[str]:
    """The text constants in `node`, those of f-strings too."""
    yield from (n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str))


def words_of(tree: ast.AST) -> Iterator[str]:
    """Words in regular expressions and in sets of texts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "re" and node.args:
                for text in texts(node.args[0]):
                    yield from WORD.findall(SYNTAX.sub(" ", text))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in COLLECTIONS:
            for argument in node.args:
                yield from (word for text in texts(argument) for word in WORD.findall(text))
        elif isinstance(node, ast.Set):
            yield from (word for text in texts(node) for word in WORD.findall(text))


def modules() -> list[Path]:
    paths = (path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))
    return [path for path in paths if not relative(path).startswith(tuple(NO_LANGUAGE))]


def relative(path: Path) -> str:
    return path.relative_to(ROOT.parent).as_posix()


def test_no_regular_expression_and_no_set_holds_words() -> None:
    found = {relative(path): list(words_of(ast.parse(path.read_text("utf-8")))) for path in modules()}
    assert {path: words for path, words in found.items() if words} == {}


@pytest.mark.parametrize(
    "code",
    [
        'x = re.compile(r"\\b(who|whom)\\b")',
        'x = frozenset("the a an".split())',
        'x = {"former", "previous"}',
        'x = re.sub(f"{y} (?:is|was)", "", z)',
    ],
)
def test_words_would_be_seen(code: str) -> None:
    assert list(words_of(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    ['x = re.compile(r"[A-Za-z0-9]{1,4}|[^\\sA-Za-z0-9]")', 'x = re.compile(r"\\w+[+#]*")', "x = {1, 2}"],
)
def test_signs_are_no_words(code: str) -> None:
    assert not list(words_of(ast.parse(code)))
