"""The value v* that makes a layer say the new target: shared by ROME and MEMIT."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lte_runtime.progress import Progress, silent
from ops.lab.baselines import base as reading
from ops.lab.baselines.base import BaselineModel, Sample, padded
from ops.lab.baselines.network import head_at, hidden_at, steered
from ops.lab.baselines.subject import Views

AT_ONCE = 8
"""Edits that one pass of the model takes."""


@dataclass(frozen=True, slots=True)
class ValueSearch:
    """Adam on delta. `kl` and `decay` weigh their terms, `clamp` bounds ||delta|| by a multiple of ||h||.

    h is what the block gives at the place, the stream that delta is added to. The authors' code measures by
    ||v0||, what the MLP alone gives; where a stream is far longer than that, such a bound leaves answers as
    they were (seen at ||h|| = 20 ||v0||: 5.7 nats fell to 5.0 only).
    `rate` is the length of the first step as a multiple of ||h||; it falls linearly to zero. The search stops
    early when the mean loss of the target is below `enough` (nats per token).
    """

    steps: int = 300
    rate: float = 0.1
    kl: float = 0.0625
    decay: float = 1e-3
    clamp: float = 4.0
    enough: float = 0.02


@dataclass(frozen=True, slots=True)
class LocateParams:
    """What ROME and MEMIT share. `place` is where the fact is written: at the subject's last token, as in
    the papers, or at the prompt's (`last`). `prefixes` texts of `prefix_tokens` tokens stand before the
    prompt, besides the plain prompt; `damping` is the share of C's mean diagonal added to it; with `end` the
    target's end is learnt too.
    """

    place: str = "subject"
    prefixes: int = 4
    prefix_tokens: int = 6
    damping: float = 1e-3
    end: bool = True
    seed: int = 0
    search: ValueSearch = field(default_factory=ValueSearch)


def find_delta(base: BaselineModel, layer: int, seen: Views, search: ValueSearch) -> Tensor:
    """delta [hidden] of one edit, as `find_deltas` finds it."""
    return find_deltas(base, layer, [seen], search)[0]


def find_deltas(
    base: BaselineModel, layer: int, seen: Sequence[Views], search: ValueSearch, progress: Progress = silent
) -> Tensor:
    """delta [n, hidden] with v* = v0 + delta (Meng et al., 2022, equation 4), each edit for itself.

    Minimises over delta the mean over contexts of -log P(target | context) with delta added to the layer's
    MLP output at the subject's last token, plus `kl` times KL(P_before || P_with) of the next token of the
    essence prompt, plus `decay` times (||delta|| / ||h||)^2.
    """
    deltas = torch.zeros(len(seen), base.model.config.hidden_size, device=base.device)
    order = sorted(range(len(seen)), key=lambda number: _longest(seen[number]))
    for start in range(0, len(order), AT_ONCE):
        chosen = order[start : start + AT_ONCE]
        deltas[chosen] = _descend(base, layer, [seen[number] for number in chosen], search)
        if len(order) > 1:
            progress("values of edits", start + len(chosen), len(order))
    return deltas


def _longest(seen: Views) -> int:
    """Tokens from the place on: edits of like length together leave little padding."""
    rows = zip(seen.samples, seen.places, strict=True)
    return max(len(row.prompt) - at + len(row.target) for row, at in rows)


def _descend(base: BaselineModel, layer: int, seen: Sequence[Views], search: ValueSearch) -> Tensor:
    """One pass of the model a step for all edits; those that are `enough` leave it."""
    prompts = [view.samples[0].prompt for view in seen]
    size = hidden_at(base, prompts, [view.places[0] for view in seen], layer).norm(dim=1, keepdim=True)
    opened = Opened.read(base, seen, essences=search.kl > 0)
    before = opened.scores()[1] if search.kl else None
    free = torch.zeros(len(seen), base.model.config.hidden_size, device=base.device, requires_grad=True)
    optimizer = torch.optim.Adam([free])
    deltas = torch.zeros_like(free, requires_grad=False)
    for step in range(search.steps):
        optimizer.param_groups[0]["lr"] = (1 - step / search.steps) * search.rate / free.shape[1] ** 0.5
        losses, after = opened.losses_with(layer, (size * free)[opened.active])
        done = losses.detach() < search.enough
        total = losses + search.decay * free[opened.active].square().sum(1)
        if before is not None:
            total = total + search.kl * F.kl_div(after, before, log_target=True, reduction="none").sum(1)
        if done.any():
            deltas[opened.active] = (size * free).detach()[opened.active]
            opened, total = opened.only(~done), total[~done]
            before = None if before is None else before[~done]
        if not len(opened.active):
            return deltas
        optimizer.zero_grad()
        total.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        _shrink(free, search.clamp)
    deltas[opened.active] = (size * free).detach()[opened.active]
    return deltas


@torch.no_grad()
def _shrink(free: Tensor, most: float) -> None:
    """Rows [n, hidden] that are longer than `most` get that length."""
    free.mul_((most / free.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0))


@dataclass(frozen=True, slots=True)
class Opened:
    """Edits in their contexts, of which all that stands before the place is read, as nothing changes it.

    Rows are the contexts of the first edit, those of the second, ..., then the essence prompts, if asked for;
    `tails` are what follows from the place on. `cache` holds keys and values of what stands before, padded on
    the right; `mask` [rows, before + tail] leaves the padding out. `active` [n] are the edits' numbers.
    """

    base: BaselineModel
    active: Tensor
    contexts: int
    tails: tuple[Sample, ...]
    ids: Tensor
    mask: Tensor
    positions: Tensor
    cache: Any

    @classmethod
    @torch.no_grad()
    def read(cls, base: BaselineModel, seen: Sequence[Views], *, essences: bool) -> Opened:
        rows = [(row, at) for view in seen for row, at in zip(view.samples, view.places, strict=True)]
        if essences:
            rows += [(Sample(view.essence, ()), view.essence_place) for view in seen]
        tails = tuple(Sample(row.prompt[at:], row.target) for row, at in rows)
        ids, mask = padded(base, [(*tail.prompt, *tail.target) for tail in tails])
        places = torch.tensor([at for _, at in rows], device=base.device)
        cache = None
        if places.any():
            head, before = padded(base, [row.prompt[:at] for row, at in rows])
            mask = torch.cat([before, mask], 1)
            cache = base.model(input_ids=head, attention_mask=before, use_cache=True).past_key_values
        positions = places[:, None] + torch.arange(ids.shape[1], device=base.device)
        positions = positions.clamp(max=base.context - 1)  # padding may lie beyond what the model can see
        active = torch.arange(len(seen), device=base.device)
        return cls(base, active, len(seen[0].samples), tails, ids, mask, positions, cache)

    def only(self, selected: Tensor) -> Opened:
        """The edits of which the mask `selected` [active] says so."""
        rows = selected.repeat_interleave(self.contexts)
        if len(self.tails) > len(rows):
            rows = torch.cat([rows, selected])
        at = rows.nonzero()[:, 0]
        cache = deepcopy(self.cache)
        if cache is not None:
            cache.batch_select_indices(at)
        tails = tuple(self.tails[row] for row in at.tolist())
        return replace(
            self,
            active=self.active[selected],
            tails=tails,
            ids=self.ids[at],
            mask=self.mask[at],
            positions=self.positions[at],
            cache=cache,
        )

    def losses_with(self, layer: int, deltas: Tensor) -> tuple[Tensor, Tensor]:
        """With `deltas` [active, hidden] added: mean loss of each target [active], and the essences."""
        added = deltas.repeat_interleave(self.contexts, 0)
        if len(self.tails) > len(added):
            added = torch.cat([added, deltas])
        with steered(self.base, layer, [0] * len(self.tails), added):
            targets, essences = self.scores()
        losses = reading.placed_losses(targets, self.tails[: self.first_essence])
        return losses.view(len(self.active), -1).mean(1), essences

    @property
    def first_essence(self) -> int:
        """Row of the first essence prompt."""
        return len(self.active) * self.contexts

    def scores(self) -> tuple[Tensor, Tensor]:
        """Logits that predict the targets, [tokens, vocabulary]; the head reads no others but the essences.

        Those are log probabilities of the next token behind the essence prompts, [active or 0, vocabulary].
        """
        first = self.first_essence
        rows, columns = reading.target_places(self.tails[:first])
        last = torch.tensor([len(tail.prompt) - 1 for tail in self.tails[first:]], dtype=torch.long)
        places = torch.cat([rows, torch.arange(first, len(self.tails))]), torch.cat([columns, last])
        with head_at(self.base, *places):
            out: Tensor = self.base.model(
                input_ids=self.ids,
                attention_mask=self.mask,
                position_ids=self.positions,
                past_key_values=deepcopy(self.cache),
                use_cache=self.cache is not None,
            ).logits
        return out[: len(rows)], out[len(rows) :].log_softmax(-1)
