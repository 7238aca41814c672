"""The value v* that makes a layer say the new target: shared by ROME and MEMIT."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from lte_runtime.evals.baselines import base as reading
from lte_runtime.evals.baselines.base import Base
from lte_runtime.evals.baselines.network import hidden_at, steered
from lte_runtime.evals.baselines.subject import Views


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


def find_delta(base: Base, layer: int, seen: Views, search: ValueSearch) -> Tensor:
    """delta [hidden] with v* = v0 + delta (Meng et al., 2022, equation 4).

    Minimises over delta the mean over contexts of -log P(target | context) with delta added to the layer's
    MLP output at the subject's last token, plus `kl` times KL(P_before || P_with) of the next token of the
    essence prompt, plus `decay` times (||delta|| / ||h||)^2.
    """
    before, size = _unedited(base, layer, seen)
    delta = torch.zeros(base.model.config.hidden_size, device=base.device, requires_grad=True)
    optimizer = torch.optim.Adam([delta])
    for step in range(search.steps):
        left = 1 - step / search.steps
        optimizer.param_groups[0]["lr"] = left * search.rate * size / len(delta) ** 0.5
        loss, drift = _terms(base, layer, seen, delta, before if search.kl else None)
        if float(loss.detach()) < search.enough:
            break
        whole = loss + search.kl * drift + search.decay * (delta.norm() / size) ** 2
        optimizer.zero_grad()
        whole.backward()
        optimizer.step()
        _shrink(delta, search.clamp * size)
    return delta.detach()


@torch.no_grad()
def _shrink(delta: Tensor, most: float) -> None:
    delta.mul_(min(1.0, most / max(float(delta.norm()), 1e-12)))


@torch.no_grad()
def _unedited(base: Base, layer: int, seen: Views) -> tuple[Tensor, float]:
    """Log probabilities behind the essence prompt [vocabulary], and the norm of h in the plain prompt."""
    scores = reading.logits(base, [seen.essence])[0, -1]
    stream = hidden_at(base, [seen.samples[0].prompt], seen.places[:1], layer)
    return scores.log_softmax(-1), float(stream.norm())


def _terms(
    base: Base, layer: int, seen: Views, delta: Tensor, before: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The target's mean loss over contexts, and the drift of the essence prompt, both scalars.

    Without `before` the essence prompt is not asked, and its drift is 0.
    """
    rows = [(*row.prompt, *row.target) for row in seen.samples]
    if before is None:
        with steered(base, layer, seen.places, delta):
            return reading.losses(reading.logits(base, rows), seen.samples).mean(), delta.new_zeros(())
    with steered(base, layer, (*seen.places, seen.essence_place), delta):
        scores = reading.logits(base, [*rows, seen.essence])
    after = scores[-1, len(seen.essence) - 1].log_softmax(-1)
    drift = F.kl_div(after, before, log_target=True, reduction="sum")
    return reading.losses(scores[:-1], seen.samples).mean(), drift
