"""Rows to tensors: tokens of turns with their loss weights, in groups of like length."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from lte_runtime.embedded.network import Group, TokenBatch
from lte_runtime.embedded.rows import PLACE, TextRow


class Encodes(Protocol):
    """What is needed of a tokenizer."""

    def encode(self, sequence: str, *, add_special_tokens: bool = ...) -> Encoding: ...


class Encoding(Protocol):
    @property
    def ids(self) -> list[int]: ...

    @property
    def offsets(self) -> list[tuple[int, int]]: ...


STEP = 4
"""Rows are padded to a multiple of so many tokens."""
SPARSE = 4
"""Of the tokens of facts and questions one in so many is counted: scoring them all costs a third more."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Loss weights by the place of a token."""

    first: float = 3.0
    answer: float = 1.0
    question: float = 0.0
    text: float = 0.3


@dataclass(frozen=True, slots=True)
class WeightedTokens:
    """One row: ids and the loss weight of each id as a target."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


PAD, USER, ASSISTANT, END = 0, 1, 2, 3
TENSORS = ("ids", "positions", "chosen", "targets", "weights")

Render = Callable[[TextRow], Sequence[tuple[str, str]]]
"""A row as pairs of (user text, answer)."""


def tokens(
    tokenizer: Encodes, pairs: Sequence[tuple[str, str]], row: TextRow, weights: Weights
) -> WeightedTokens:
    """Ids and weights of the turns `pairs`, or of the row's running text behind its uncounted lead."""
    if row.pieces:
        return _drilled(tokenizer, pairs, row, weights)
    ids: list[int] = []
    scale: list[float] = []
    if row.text:
        ids += tokenizer.encode(row.lead, add_special_tokens=False).ids
        scale += [0.0] * len(ids)
        told = tokenizer.encode(row.text, add_special_tokens=False)
        ids += told.ids
        scale += _counted(told, row.spans, weights)
        scale[0] = 0.0
    for user, answer in pairs:
        asked = tokenizer.encode(user, add_special_tokens=False).ids
        given = tokenizer.encode(answer, add_special_tokens=False).ids
        ids += [USER, *asked, END, ASSISTANT, *given, END]
        counted = len(asked) % SPARSE
        scale += [
            0.0,
            *(weights.question if i % SPARSE == counted else 0.0 for i in range(len(asked))),
            0.0,
            0.0,
        ]
        scale += [weights.first] + [weights.answer] * len(given)
    return WeightedTokens(tuple(ids), tuple(scale))


def _drilled(
    tokenizer: Encodes, pairs: Sequence[tuple[str, str]], row: TextRow, weights: Weights
) -> WeightedTokens:
    """As `tokens`; in lead, text and questions a piece counts where it is told again, its first id aside."""
    ids: list[int] = []
    scale: list[float] = []
    seen: set[str] = set()
    for part, counts in ((row.lead, 0.0), (row.text, 1.0)):
        spliced = splice(tokenizer, part, row.pieces, seen)
        ids += [each for each, _ in spliced]
        scale += [counts * again for _, again in spliced]
    for user, answer in pairs:
        asked, given = splice(tokenizer, user, row.pieces, seen), splice(tokenizer, answer, row.pieces, seen)
        ids += [USER, *(each for each, _ in asked), END, ASSISTANT, *(each for each, _ in given), END]
        scale += [0.0, *(weights.text * again for _, again in asked), 0.0, 0.0]
        scale += [weights.first] + [weights.answer] * len(given)
    return WeightedTokens(tuple(ids), tuple(scale))


BEFORE = "x"
_PLACED = re.compile(" ?([\ue000-\uf8ff])")


def splice(
    tokenizer: Encodes, text: str, pieces: Sequence[tuple[int, ...]], seen: set[str]
) -> list[tuple[int, float]]:
    """Ids of the text with its pieces put in; 1.0 beside the ids of a piece in `seen`, but for its first.

    The pieces of the text are added to `seen`.
    """
    spliced: list[tuple[int, float]] = []
    for number, part in enumerate(_PLACED.split(text)):
        if number % 2:
            first, *rest = pieces[ord(part) - PLACE]
            spliced += [(first, 0.0), *((each, float(part in seen)) for each in rest)]
            seen.add(part)
        elif part:
            # Behind a piece a text is encoded as behind a word, so that a full stop is the usual one.
            word = BEFORE if number else ""
            skipped = len(tokenizer.encode(word, add_special_tokens=False).ids)
            found = tokenizer.encode(word + part, add_special_tokens=False).ids
            spliced += [(each, 0.0) for each in found[skipped:]]
    return spliced


def _counted(told: Encoding, spans: Sequence[tuple[int, int]], weights: Weights) -> list[float]:
    """Weights of running text: a little everywhere, or in full at the spans alone."""
    if not spans:
        return [weights.text] * len(told.ids)
    return [float(any(stop > a and start < b for a, b in spans)) for start, stop in told.offsets]


def collate(rows: Sequence[WeightedTokens], slack: float = 0.12, total: int = 0) -> TokenBatch:
    """A batch of rows; rows whose lengths differ by less than `slack` share a group.

    With `total` it has exactly so many tokens: rows that find no room are left out.
    """
    ordered = sorted(rows, key=lambda row: len(row.ids))
    if total:
        groups = _grouped(ordered, slack)
        while sum(_padded(group) for group in groups) > total:
            # Every so many rows one goes, so that what stays has the lengths of the whole.
            over = sum(_padded(group) for group in groups) - total
            left_out = min(-(-over * len(ordered) // total), -(-len(ordered) // 2))
            gone = {round((i + 0.5) * len(ordered) / left_out) for i in range(left_out)}
            ordered = [row for i, row in enumerate(ordered) if i not in gone]
            groups = _grouped(ordered, slack)
        return _tensors(groups, total)
    return _tensors(_grouped(ordered, slack))


def _grouped(ordered: Sequence[WeightedTokens], slack: float) -> list[list[WeightedTokens]]:
    groups: list[list[WeightedTokens]] = []
    for row in ordered:
        if groups and len(groups[-1][0].ids) >= (1 - slack) * len(row.ids) - 4:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _padded(group: Sequence[WeightedTokens]) -> int:
    """Tokens of a group, its rows sorted, with their padding."""
    return len(group) * _width(group)


def _width(group: Sequence[WeightedTokens]) -> int:
    return -(-len(group[-1].ids) // STEP) * STEP


def halves(rows: Sequence[WeightedTokens], parts: int = 2) -> list[TokenBatch]:
    """The rows as `parts` batches of about equal work: every `parts`-th row by length."""
    ordered = sorted(rows, key=lambda row: len(row.ids))
    return [collate(ordered[part::parts]) for part in range(parts)]


def _tensors(groups: Sequence[Sequence[WeightedTokens]], total: int = 0) -> TokenBatch:
    ids: list[int] = []
    positions: list[int] = []
    chosen: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    layout = []
    for group in groups:
        length = _width(group)
        layout.append(Group(len(ids), len(group), length))
        for row in group:
            start = len(ids)
            for place, weight in enumerate(row.weights):
                if weight > 0:
                    chosen.append(start + place - 1)
                    targets.append(row.ids[place])
                    weights.append(weight)
            ids += [*row.ids, *([PAD] * (length - len(row.ids)))]
            positions += range(length)
    spare = total - len(ids) if total else -len(ids) % 128
    ids += [PAD] * spare
    positions += [0] * spare
    fill = -len(chosen) % 128
    chosen += [0] * fill
    targets += [PAD] * fill
    weights += [0.0] * fill
    return TokenBatch(
        torch.tensor(ids),
        torch.tensor(positions),
        tuple(layout),
        torch.tensor(chosen),
        torch.tensor(targets),
        torch.tensor(weights),
    )


def save(batch: TokenBatch, path: Path) -> None:
    """Writes beside and renames, so that a reader finds a whole batch or none."""
    kept = {name: getattr(batch, name) for name in TENSORS}
    beside = path.with_suffix(".part")
    torch.save(kept | {"groups": [(each.start, each.rows, each.length) for each in batch.groups]}, beside)
    beside.replace(path)


def load(path: Path) -> TokenBatch:
    """The batch that `save` wrote; waits for it."""
    while not path.exists():
        time.sleep(0.01)
    kept = torch.load(path, weights_only=True)
    return TokenBatch(groups=tuple(Group(*each) for each in kept.pop("groups")), **kept)
