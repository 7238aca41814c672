"""Where a prompt's subject ends, in tokens, and the contexts in which ROME and MEMIT look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lte_runtime.answer.prompt import one_line
from ops.lab.baselines import base as reading
from ops.lab.baselines.base import BaselineModel, Sample
from ops.lab.baselines.protocol import EditRequest


@dataclass(frozen=True, slots=True)
class Views:
    """One edit in several contexts, the plain prompt first.

    `places` are the positions in `samples` at which the fact is written. `essence` is a prompt "{subject} is
    a" whose answer is to stay as it is (Meng et al., 2022, equation 4), `essence_place` the same place in it.
    """

    samples: tuple[Sample, ...]
    places: tuple[int, ...]
    essence: tuple[int, ...]
    essence_place: int


def views(
    base: BaselineModel, request: EditRequest, prefixes: Sequence[str], *, end: bool, place: str = "subject"
) -> Views:
    """The prompt as it is and behind each prefix; with `end` targets are closed by the end token.

    `place` is `subject` or `last`: the position of the subject's last token or of the prompt's.
    """
    texts = [request.prompt, *(f"{prefix}. {request.prompt}" for prefix in prefixes)]
    samples = tuple(reading.sample(base, text, request.target, end=end) for text in texts)
    essence = f"{request.subject} is a"
    essence_ids = reading.question(base, essence)
    if place == "last":
        places = tuple(len(row.prompt) - 1 for row in samples)
        return Views(samples, places, essence_ids, len(essence_ids) - 1)
    return Views(
        samples,
        tuple(last_token(base, row.prompt, text, request) for row, text in zip(samples, texts, strict=True)),
        essence_ids,
        last_token(base, essence_ids, essence, request),
    )


def last_token(base: BaselineModel, ids: Sequence[int], question: str, request: EditRequest) -> int:
    """Position of the subject's last token, or of the question's where it does not spell the subject."""
    end = _end_of(base, ids, one_line(request.subject))
    if end is None:
        end = _end_of(base, ids, one_line(question))
    return len(ids) - 1 if end is None else end


def _end_of(base: BaselineModel, ids: Sequence[int], text: str) -> int | None:
    """The first position at which the decoded ids hold `text`; case does not matter."""
    folded = text.casefold()

    def holds(count: int) -> bool:
        return folded in str(base.tokenizer.decode(ids[:count])).casefold()

    if not folded or not holds(len(ids)):
        return None
    low, high = 1, len(ids)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low - 1


@torch.no_grad()
def sampled_prefixes(base: BaselineModel, count: int, length: int, seed: int) -> tuple[str, ...]:
    """Texts of `length` tokens that the model itself goes on with where a question begins."""
    rng = torch.Generator().manual_seed(seed)
    rows = [list(_opening(base)) for _ in range(count)]
    barred = sorted({*base.tokenizer.all_special_ids, *base.tokenizer.get_added_vocab().values()})
    for _ in range(length if rows else 0):
        scores = reading.logits(base, rows)[:, -1].cpu()
        scores[:, barred] = -torch.inf
        scores[:, len(base.tokenizer) :] = -torch.inf
        for row, token in zip(rows, torch.multinomial(scores.softmax(-1), 1, generator=rng), strict=True):
            row.append(int(token))
    begin = len(_opening(base))
    return tuple(one_line(base.tokenizer.decode(row[begin:])) for row in rows)


def _opening(base: BaselineModel) -> tuple[int, ...]:
    """The ids that every question begins with."""
    first, second = reading.question(base, "A"), reading.question(base, "?")
    same = next((at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), 1)
    return first[: max(same, 1)]
