"""The tables and pictures of compared methods, from what `lte eval knowedit --json` printed.

Everything but `write` and `machine` is pure.
"""

from __future__ import annotations

import datetime
import html
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lte_runtime.errors import BadRequest, NotFound
from ops.lab.evals.arms import ALL
from ops.lab.evals.knowedit import SETS

BEGIN, END = "<!-- compared methods: begin -->", "<!-- compared methods: end -->"
COLUMNS = (
    ("edit", ("edit_success",)),
    ("generality", ("generality",)),
    ("portability", ("portability_mean",)),
    ("locality", ("locality",)),
    ("mean", ("arithmetic_mean",)),
    ("harmonic", ("harmonic_mean",)),
    ("edit (contains)", ("contains", "edit_success")),
    ("generality (contains)", ("contains", "generality")),
    ("portability (contains)", ("contains", "portability_mean")),
    ("additions", ("invented_additions",)),
    ("edit (tf)", ("forced", "edit_success")),
    ("generality (tf)", ("forced", "generality")),
    ("locality (tf)", ("forced", "locality")),
    ("belief", ("belief",)),
    ("ROUGE-L", ("rouge_l",)),
    ("fluency", ("fluency",)),
    ("s/edit", ("seconds_per_edit",)),
    ("peak MB", ("peak_mb",)),
)
LEADS = ("lead", "lead_contains")
"""Results before the second score have the first alone."""
MODELS = {"llama": "LLaMA", "qwen2": "Qwen2", "smollm2": "SmolLM2"}
BARS = ("edit_success", "generality", "portability_mean", "locality")
COLOURS = ("#3b6fb6", "#6aa84f", "#c27ba0", "#8d8d8d")

INTRODUCTION = """Every method works on the same weights in float32; all edits of a group are made first and
all probes asked afterwards. Headline: free decoding, exact match; `(tf)` is teacher-forced (share of the
target's tokens that are the likeliest). `(contains)`: the same answers, right where the value stands in them
and the one before the edit does not; `additions`: of the answers with the value, the share that has a word
that neither fact nor question has. `mean` and `harmonic` are the two means of the first four. Locality is
against the base before any edit: the same answer, all of it. Brackets: 95 % by bootstrap over edits. Settings
come from `lte eval search` where a row says searched, with the same least budget for each baseline. `lead`:
the mean of `ours` less that of the method, edits resampled in pairs; on wikibio the mean of ROUGE-L over 60
tokens, teacher-forced tokens and locality."""

Result = Mapping[str, Any]


def write(page: Path, results: Sequence[Path], machine: str) -> None:
    """Replaces the section between the marks in `page`, or adds it; a picture of each mode lies beside it.

    Raises `NotFound` for a file that is not there, `BadRequest` for one that is no result.
    """
    merged = joined([_read(path) for path in results])
    text = page.read_text(encoding="utf-8") if page.is_file() else "# Evaluation\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    for result in merged:
        (page.parent / f"evaluation-{slug(result)}.svg").write_text(picture(result), encoding="utf-8")
    body = section(merged, machine, datetime.date.today().isoformat())
    page.write_text(replaced(text, body), encoding="utf-8")
    page.with_suffix(".html").write_text(as_html(merged, machine), encoding="utf-8")


def _read(path: Path) -> Result:
    if not path.is_file():
        raise NotFound(f"there is no result file at {path}")
    try:
        result: Result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadRequest(f"{path} is not JSON: {error}") from error
    if not {"mode", "methods", "model", "lead"} <= set(result):
        raise BadRequest(
            f"{path} holds no compared methods: write it with `lte eval knowedit --mode batch --json`"
        )
    return result


def joined(results: Sequence[Result]) -> list[Result]:
    """Results of one model, mode and part as one, with the methods of all; of repeats the last counts.

    All edits of a set come first, then batches and sequences by size, then what was cut short.
    """
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for result in results:
        key = (*(result[part] for part in ("model", "mode", "split", "limit", "seed")), result["base"][:12])
        empty: dict[str, Any] = {"methods": {}, **{lead: {} for lead in LEADS}, "hours": 0.0}
        entry = merged.setdefault(key, {**result, **empty})
        entry["hours"] += hours(result)
        entry["date"] = result.get("date", "")
        for name, measured in result["methods"].items():
            before = entry["methods"].get(name, {}).get("sets", {})
            entry["methods"][name] = {**measured, "sets": {**before, **measured["sets"]}}
        for lead in LEADS:
            for name, leads in result.get(lead, {}).items():
                entry[lead][name] = {**entry[lead].get(name, {}), **leads}
    for entry in merged.values():
        entry["methods"] = dict(sorted(entry["methods"].items(), key=lambda method: ALL.index(method[0])))
    return sorted(merged.values(), key=_place)


def _place(result: Result) -> tuple[Any, ...]:
    kind, _, size = result["mode"].partition(":")
    return (-(result["limit"] or math.inf), kind, int(size or 0), result["model"])


def hours(result: Result) -> float:
    """Of one core: those that it says itself, else the sum over its methods and sets."""
    if "hours" in result:
        return float(result["hours"])
    return sum(float(s["seconds"]) for m in result["methods"].values() for s in m["sets"].values()) / 3600


def machine() -> str:
    """Processor and cores, as the kernel names them."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{os.cpu_count()} cores of {name}"


def replaced(page: str, body: str) -> str:
    """The page with `body` between the marks."""
    marked = f"{BEGIN}\n{body.strip()}\n{END}"
    head, begin, tail = page.partition(BEGIN)
    if not begin:
        return f"{page.rstrip()}\n\n{marked}\n"
    return f"{head}{marked}{tail.partition(END)[2]}"


def section(results: Sequence[Result], machine: str, date: str) -> str:
    """The section as Markdown: what was measured and how, then a table for each mode and set."""
    lines = ["## Methods of editing compared", "", f"Machine: {machine}. Date: {date}.", INTRODUCTION]
    for result in results:
        lines += [
            "",
            f"### {headline(result)}",
            "",
            f"![{result['mode']}](evaluation-{slug(result)}.svg)",
            "",
        ]
        lines += [*summary(result), "", "<details><summary>Each set</summary>"]
        for name in sets(result):
            lines += ["", f"**{name}**, {edits(result, name)} edits", "", *table(result, name)]
            lines += retested(result, name)
        lines += ["", "</details>"]
    return "\n".join(lines)


def headline(result: Result) -> str:
    cut = f", at most {result['limit']} edits of a set" if result.get("limit") else ""
    where = f"{result['split']} part{cut}, seed {result['seed']}, base {result['base'][:12]}"
    spent = ", ".join(filter(None, (result.get("date"), f"{hours(result):.2f} h")))
    return f"{MODELS.get(result['model'], result['model'])}, mode {result['mode']} ({where}, {spent})"


def slug(result: Result) -> str:
    """A name for files that tells results apart."""
    parts = (result["model"], result["mode"].replace(":", "-"), result.get("limit") or "all")
    return "-".join(map(str, parts))


def sets(result: Result) -> list[str]:
    names = {name for method in result["methods"].values() for name in method["sets"]}
    return [name for name in SETS if name in names]


def edits(result: Result, name: str) -> int:
    return max(
        int(method["sets"][name]["n"]) for method in result["methods"].values() if name in method["sets"]
    )


def summary(result: Result) -> Iterator[str]:
    """A row for each method: the mean of the four on each set, and how far that of `ours` lies above it."""
    shown = [name for name in sets(result) if name != "wikibio"]
    heads = [f"{name} | lead" for name in shown] + ["wikibio lead"] * ("wikibio" in sets(result))
    yield "| method | " + " | ".join(heads) + " |"
    yield "|---|" + "---:|" * (2 * len(shown) + ("wikibio" in sets(result)))
    for method, measured in result["methods"].items():
        cells = []
        for name in sets(result):
            lead = bounded(result["lead"].get(name, {}).get(method))
            figures = measured["sets"].get(name)
            cells += (
                [lead]
                if name == "wikibio"
                else [cell(figures, ("arithmetic_mean",)) if figures else "", lead]
            )
        yield f"| {method} | " + " | ".join(cells) + " |"


def table(result: Result, name: str) -> Iterator[str]:
    """A row for each method."""
    yield "| method | " + " | ".join(title for title, _ in COLUMNS) + " | lead | lead (contains) | settings |"
    yield "|---|" + "---:|" * (len(COLUMNS) + 2) + "---|"
    for method, measured in result["methods"].items():
        if name in measured["sets"]:
            cells = [cell(measured["sets"][name], path) for _, path in COLUMNS]
            cells += [bounded(result.get(lead, {}).get(name, {}).get(method)) for lead in LEADS]
            yield f"| {method} | " + " | ".join(cells) + f" | {measured['settings']} |"


def bounded(lead: Sequence[float] | None) -> str:
    """A signed difference with its interval; empty where there is none."""
    return "" if lead is None else f"{lead[0]:+.3f} [{lead[1]:+.2f}, {lead[2]:+.2f}]"


def cell(figures: Result, path: Sequence[str]) -> str:
    """A figure with its interval where there is one; empty where nothing was measured."""
    *parents, name = path
    for parent in parents:
        figures = figures.get(parent) or {}
    value = figures.get(name)
    if value is None:
        return ""
    bounds = (figures.get("interval") or {}).get(name)
    shown = f"{value:.0f}" if abs(value) >= 10 else f"{value:.3f}"
    return f"{shown} [{bounds[0]:.2f}, {bounds[1]:.2f}]" if bounds else shown


def retested(result: Result, name: str) -> list[str]:
    """How many earlier edits still hold after so many, for sequences."""
    steps_by_method = {
        method: measured["sets"][name].get("retested") or {}
        for method, measured in result["methods"].items()
        if name in measured["sets"]
    }
    counts = sorted({int(count) for steps in steps_by_method.values() for count in steps})
    if not counts:
        return []
    lines = ["", "All earlier edits asked again after so many edits:", ""]
    lines += ["| method | " + " | ".join(map(str, counts)) + " |", "|---|" + "---:|" * len(counts)]
    for method, steps in steps_by_method.items():
        values = [steps.get(str(count)) for count in counts]
        lines.append(f"| {method} | " + " | ".join("" if v is None else f"{v:.3f}" for v in values) + " |")
    return lines


def means(result: Result) -> dict[str, dict[str, float]]:
    """For each method the four figures, each the mean over sets that have it."""
    averages: dict[str, dict[str, float]] = {}
    for method, measured in result["methods"].items():
        averages[method] = {}
        for bar in BARS:
            values = [f[bar] for f in measured["sets"].values() if f[bar] is not None]
            if values:
                averages[method][bar] = sum(values) / len(values)
    return averages


def picture(result: Result) -> str:
    """Bars of the four figures for each method as SVG, 0 to 1."""
    rows = means(result)
    height = 58 * len(rows) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{height}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for place, (bar, colour) in enumerate(zip(BARS, COLOURS, strict=True)):
        parts.append(f'<rect x="{130 + 140 * place}" y="10" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{145 + 140 * place}" y="19">{bar.replace("_", " ")}</text>')
    for row, (method, values) in enumerate(rows.items()):
        top = 34 + 58 * row
        parts.append(f'<text x="120" y="{top + 26}" text-anchor="end">{html.escape(method)}</text>')
        for place, (bar, colour) in enumerate(zip(BARS, COLOURS, strict=True)):
            if bar in values:
                y, width = top + 12 * place, 520 * values[bar]
                parts.append(f'<rect x="130" y="{y}" width="{width:.1f}" height="10" fill="{colour}"/>')
                parts.append(
                    f'<text x="{136 + width:.1f}" y="{y + 9}" font-size="10">{values[bar]:.2f}</text>'
                )
    return "".join(parts) + "</svg>\n"


def as_html(results: Sequence[Result], machine: str) -> str:
    """The same tables as one page that needs no other file."""
    parts = ["<!doctype html><meta charset='utf-8'><title>Methods of editing compared</title>"]
    parts.append("<style>body{font-family:sans-serif}td,th{padding:2px 8px;text-align:right}</style>")
    parts.append(f"<h1>Methods of editing compared</h1><p>Machine: {html.escape(machine)}.</p>")
    for result in results:
        parts.append(f"<h2>{html.escape(headline(result))}</h2>{picture(result)}")
        for name in sets(result):
            parts.append(f"<h3>{html.escape(name)}, {edits(result, name)} edits</h3><table>")
            for number, row in enumerate(table(result, name)):
                if number != 1:
                    tag = "td" if number else "th"
                    cells = [html.escape(text.strip()) for text in row.strip("|").split("|")]
                    parts.append("<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in cells) + "</tr>")
            parts.append("</table>")
    return "\n".join(parts) + "\n"
