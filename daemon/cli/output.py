"""What commands print: JSON for programs, coloured tables for people, plain columns for pipes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any

from lte_runtime.progress import Progress, silent


def as_json(value: object) -> None:
    """One JSON document on stdout, indented on a terminal."""
    print(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None, default=str))


def as_json_list(items: Iterable[object]) -> None:
    """A list as one JSON document; in a pipe each item is printed as it comes. Nothing is printed when there
    is an error before the first."""
    if sys.stdout.isatty():
        as_json(list(items))
        return
    opening = "["
    for item in items:
        print(opening, json.dumps(item, ensure_ascii=False, default=str), sep="", end="")
        opening = ", "
    print("[]" if opening == "[" else "]")


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    title: str = "",
    colours: Mapping[str, str] | None = None,
) -> None:
    """A table on a terminal; tab-separated lines with a header in a pipe. A row whose last cell is in
    `colours` gets that style."""
    if sys.stdout.isatty():
        _rich_table(columns, rows, title, colours or {})
        return
    lines = iter(rows)
    first = list(islice(lines, 1))  # an error before the first row prints no header
    print("\t".join(columns))
    for row in chain(first, lines):
        print("\t".join(_cell(value).replace("\t", " ").replace("\n", " ") for value in row))


def pairs(values: Mapping[str, Any], title: str = "") -> None:
    """Names and values, one on each line."""
    table(("name", "value"), values.items(), title)


def note(message: str) -> None:
    """A line for the person at the terminal; on stderr, so that pipes stay clean."""
    print(message, file=sys.stderr)


@contextmanager
def progress(shown: bool) -> Iterator[Progress]:
    """A bar on stderr where somebody looks at it."""
    if not (shown and sys.stderr.isatty()):
        yield silent
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def utc(milliseconds: int | None) -> str:
    """A time in milliseconds since the epoch as ISO 8601, or a dash."""
    if not milliseconds:
        return "-"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _rich_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], title: str, colours: Mapping[str, str]
) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(title=title or None, header_style="bold cyan", title_justify="left")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        # Fact text is not markup: brackets in it must not colour or break the table.
        drawn.add_row(*(escape(_cell(value)) for value in row), style=colours.get(str(row[-1])))
    Console().print(drawn)
