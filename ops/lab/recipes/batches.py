"""Rows to tensors: tokens of turns with their loss weights, in groups of like length."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from ops.lab.recipes.network import Group, TokenBatch
from ops.lab.recipes.rows import PLACE, TextRow


class Encodes(Protocol):
    """The part of a tokenizer that is needed here."""

    def encode(self, sequence: str, *, add_special_tokens: bool = ...) -> Encoding: ...


class Encoding(Protocol):
    @property
    def ids(self) -> list[int]: ...

    @property
    def offsets(self) -> list[tuple[int, int]]: ...


STEP = 4
"""Rows are padded to a multiple of this many tokens."""
SPARSE = 4
"""One in this many tokens of facts and questions is counted: scoring all of them costs a third more."""


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
        return _piece_tokens(tokenizer, pairs, row, weights)
    ids: list[int] = []
    loss_weights: list[float] = []
    if row.text:
        ids += tokenizer.encode(row.lead, add_special_tokens=False).ids
        loss_weights += [0.0] * len(ids)
        encoding = tokenizer.encode(row.text, add_special_tokens=False)
        ids += encoding.ids
        loss_weights += _text_weights(encoding, row.spans, weights)
        loss_weights[0] = 0.0
    for user, answer in pairs:
        question_ids = tokenizer.encode(user, add_special_tokens=False).ids
        answer_ids = tokenizer.encode(answer, add_special_tokens=False).ids
        ids += [USER, *question_ids, END, ASSISTANT, *answer_ids, END]
        counted_residue = len(question_ids) % SPARSE
        loss_weights += [
            0.0,
            *(weights.question if i % SPARSE == counted_residue else 0.0 for i in range(len(question_ids))),
            0.0,
            0.0,
        ]
        loss_weights += [weights.first] + [weights.answer] * len(answer_ids)
    return WeightedTokens(tuple(ids), tuple(loss_weights))


def _piece_tokens(
    tokenizer: Encodes, pairs: Sequence[tuple[str, str]], row: TextRow, weights: Weights
) -> WeightedTokens:
    """As `tokens`; in lead, text and questions a piece counts where it is repeated, without its first id."""
    ids: list[int] = []
    loss_weights: list[float] = []
    seen: set[str] = set()
    for part, part_weight in ((row.lead, 0.0), (row.text, 1.0)):
        spliced = splice(tokenizer, part, row.pieces, seen)
        ids += [token_id for token_id, _ in spliced]
        loss_weights += [part_weight * repeated for _, repeated in spliced]
    for user, answer in pairs:
        question = splice(tokenizer, user, row.pieces, seen)
        reply = splice(tokenizer, answer, row.pieces, seen)
        ids += [USER, *(token_id for token_id, _ in question), END]
        ids += [ASSISTANT, *(token_id for token_id, _ in reply), END]
        loss_weights += [0.0, *(weights.text * repeated for _, repeated in question), 0.0, 0.0]
        loss_weights += [weights.first] + [weights.answer] * len(reply)
    return WeightedTokens(tuple(ids), tuple(loss_weights))


BEFORE = "x"
_PIECE_MARK = re.compile(" ?([\ue000-\uf8ff])")


def splice(
    tokenizer: Encodes, text: str, pieces: Sequence[tuple[int, ...]], seen: set[str]
) -> list[tuple[int, float]]:
    """Pairs (id, weight) of the text with its pieces put in.

    The weight is 1.0 for the ids of a piece in `seen`, except its first id; else 0.0.

    The pieces of the text are added to `seen`.
    """
    spliced: list[tuple[int, float]] = []
    for number, part in enumerate(_PIECE_MARK.split(text)):
        if number % 2:
            first_id, *later_ids = pieces[ord(part) - PLACE]
            spliced += [(first_id, 0.0), *((token_id, float(part in seen)) for token_id in later_ids)]
            seen.add(part)
        elif part:
            # Behind a piece a text is encoded as behind a word, so that a full stop is the usual one.
            context = BEFORE if number else ""
            context_length = len(tokenizer.encode(context, add_special_tokens=False).ids)
            part_ids = tokenizer.encode(context + part, add_special_tokens=False).ids
            spliced += [(token_id, 0.0) for token_id in part_ids[context_length:]]
    return spliced


def _text_weights(encoding: Encoding, spans: Sequence[tuple[int, int]], weights: Weights) -> list[float]:
    """Weights of running text: a little everywhere, or in full at the spans alone."""
    if not spans:
        return [weights.text] * len(encoding.ids)
    return [float(any(stop > a and start < b for a, b in spans)) for start, stop in encoding.offsets]


def collate(rows: Sequence[WeightedTokens], slack: float = 0.12, total: int = 0) -> TokenBatch:
    """A batch of rows; rows whose lengths differ by less than `slack` share a group.

    With `total` the batch has exactly that many tokens: rows that do not fit are left out.
    """
    ordered = sorted(rows, key=lambda row: len(row.ids))
    if total:
        groups = _grouped(ordered, slack)
        while sum(_padded(group) for group in groups) > total:
            # Rows are dropped at even distances, so that the remaining ones keep the mixture of lengths.
            excess = sum(_padded(group) for group in groups) - total
            drop_count = min(-(-excess * len(ordered) // total), -(-len(ordered) // 2))
            dropped = {round((i + 0.5) * len(ordered) / drop_count) for i in range(drop_count)}
            ordered = [row for i, row in enumerate(ordered) if i not in dropped]
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


def collate_parts(rows: Sequence[WeightedTokens], parts: int = 2) -> list[TokenBatch]:
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
    """Writes a `.part` file and renames it, so that a reader finds a complete batch or none."""
    tensors = {name: getattr(batch, name) for name in TENSORS}
    part_path = path.with_suffix(".part")
    torch.save(
        tensors | {"groups": [(group.start, group.rows, group.length) for group in batch.groups]}, part_path
    )
    part_path.replace(path)


def load(path: Path) -> TokenBatch:
    """The batch that `save` wrote; waits for it."""
    while not path.exists():
        time.sleep(0.01)
    fields = torch.load(path, weights_only=True)
    return TokenBatch(groups=tuple(Group(*layout) for layout in fields.pop("groups")), **fields)
