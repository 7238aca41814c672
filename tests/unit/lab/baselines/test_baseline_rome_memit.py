"""ROME and MEMIT against their equations, and on tiny models of each architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ops.lab.baselines import base as reading
from ops.lab.baselines import closed_form, network, subject, value
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.memit import Memit, MemitParams
from ops.lab.baselines.moments import Moments
from ops.lab.baselines.protocol import EditRequest
from ops.lab.baselines.rome import Rome, RomeParams, associate, insert, mean_key
from ops.lab.baselines.value import Opened, ValueSearch, find_delta, find_deltas
from ops.lab.baselines.weights import Change, WeightEditor
from tests.unit.answer.engine.tiny import SENTENCES
from tests.unit.lab.baselines import world
from tests.unit.lab.baselines.conftest import ARCHITECTURES, EDITS, same_bits, weights_of

SEARCH = ValueSearch(steps=40, rate=0.5, clamp=20.0, decay=1e-4)
ROME = RomeParams(layer=0, prefixes=2, prefix_tokens=3, end=False, search=SEARCH)
MEMIT = MemitParams(layers=(0, 1), strength=1e-3, prefixes=2, prefix_tokens=3, end=False, search=SEARCH)


def moments(base: BaselineModel, directory: Path) -> Moments:
    """From the world's prompts for its own tokenizer, else from sentences."""

    def texts() -> list[Sequence[int]]:
        sentences: list[Sequence[int]] = [reading.question(base, text) for text in SENTENCES[:5]]
        return world.texts(base) if len(base.tokenizer) < 100 else sentences

    return Moments(base, texts, source="test", directory=directory)


def held(editor: WeightEditor, requests: Sequence[EditRequest]) -> float:
    """Share of the requests whose target's tokens are all the most likely ones."""
    read = editor.forced([(one.prompt, one.target) for one in requests])
    return sum(all(one.right) for one in read) / len(requests)


def success(editor: WeightEditor) -> float:
    """Share of the edits that hold when each is made alone."""
    total = 0.0
    for one in world.EDITS:
        editor.edit([one])
        total += held(editor, [one])
        editor.undo()
    return total / len(world.EDITS)


def change(method: str, base: BaselineModel, directory: Path) -> Change:
    """Without prefixes: in a random model they move a key too far for their mean to stand for it."""
    known = moments(base, directory)
    if method == "rome":
        return Rome(replace(ROME, prefixes=0), known)
    return Memit(replace(MEMIT, prefixes=0), known)


def moment(width: int) -> Tensor:
    """A full-rank C with directions of very unlike size."""
    torch.manual_seed(3)
    keys = torch.randn(4 * width, width, dtype=torch.float64) * torch.logspace(-2, 1, width).double()
    return keys.T @ keys / len(keys)


def test_rank_one_maps_the_key_to_the_value_and_spares_what_c_knows() -> None:
    torch.manual_seed(0)
    matrix, key, value = torch.randn(6, 12).double(), torch.randn(12).double(), torch.randn(6).double()
    known = moment(12)
    solved = torch.linalg.solve(known, key)
    update = closed_form.rank_one(solved, key, value - matrix @ key)
    torch.testing.assert_close((matrix + update) @ key, value)
    # Among all updates that reach the value, it disturbs keys of moment C least.
    other = torch.outer(value - matrix @ key, key) / (key @ key)
    cost = [float(torch.trace(one @ known @ one.T)) for one in (update, other)]
    assert cost[0] < cost[1]


def test_least_squares_solves_the_normal_equations() -> None:
    torch.manual_seed(1)
    keys, residuals, known = torch.randn(5, 12).double(), torch.randn(5, 6).double(), moment(12)
    root = closed_form.factor(known, 0.0)
    update = closed_form.least_squares(root, keys, residuals, 0.7)
    expected = residuals.T @ keys @ torch.linalg.inv(0.7 * known + keys.T @ keys)
    torch.testing.assert_close(update, expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rome_maps_its_key_to_its_value(
    architecture: str, make_base: Callable[..., BaselineModel], tmp_path: Path
) -> None:
    base = make_base(architecture)
    prefixes = subject.sampled_prefixes(base, 2, 4, 0)
    found = associate(base, EDITS[0], prefixes, ROME)
    layer = network.projection(base.model, 0)
    wanted = layer(found.key) + found.residual
    assert float(found.residual.norm()) > 0.1
    insert(base, 0, found, closed_form.factor(moments(base, tmp_path).get([0])[0], 1e-3))
    assert float((layer(found.key) - wanted).norm() / wanted.norm()) < 1e-4


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_memit_of_one_layer_and_one_edit_is_rome_as_lambda_goes_to_zero(
    architecture: str, make_base: Callable[..., BaselineModel], tmp_path: Path
) -> None:
    updates: list[Tensor] = []
    for method in ("rome", "memit"):
        base = make_base(architecture)
        before = network.matrix(base.model, 0).clone()
        one_layer = replace(MEMIT, layers=(0,), strength=1e-9)
        known = moments(base, tmp_path)
        by = Rome(ROME, known) if method == "rome" else Memit(one_layer, known)
        WeightEditor(base, by).edit(EDITS[:1])
        updates.append(network.matrix(base.model, 0) - before)
    assert float((updates[1] - updates[0]).norm() / updates[0].norm()) < 1e-3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("method", ["rome", "memit"])
def test_single_edits_hold_and_undo_restores_every_bit(
    method: str, architecture: str, tmp_path: Path
) -> None:
    base = world.random_base(architecture)
    before = weights_of(base)
    editor = WeightEditor(base, change(method, base, tmp_path))
    assert held(editor, world.EDITS) <= 0.2
    assert success(editor) >= 0.9
    assert same_bits(base, before)


def test_memit_holds_a_batch_and_goes_on_with_another(tmp_path: Path) -> None:
    base = world.random_base("llama")
    before = weights_of(base)
    editor = WeightEditor(base, change("memit", base, tmp_path))
    editor.edit(world.EDITS[:6])
    assert held(editor, world.EDITS[:6]) >= 0.8
    editor.edit(world.EDITS[6:])
    assert held(editor, world.EDITS[6:]) >= 0.7
    editor.undo()
    assert same_bits(base, before)


@pytest.mark.parametrize("chat", [True, False])
def test_the_subject_ends_at_its_last_token(make_base: Callable[..., BaselineModel], *, chat: bool) -> None:
    base = make_base(chat=chat)
    for one in EDITS:
        seen = subject.views(base, one, ["Some words before"], end=True)
        for row, place in zip(seen.samples, seen.places, strict=True):
            upto = base.tokenizer.decode(row.prompt[: place + 1])
            assert one.subject in upto
            assert one.subject not in base.tokenizer.decode(row.prompt[:place])
    elsewhere = EditRequest("Nobody", EDITS[0].prompt, "x")
    ids = reading.question(base, elsewhere.prompt)
    place = subject.last_token(base, ids, elsewhere.prompt, elsewhere)
    assert base.tokenizer.decode(ids[: place + 1]).endswith("?")


def test_keys_are_the_mean_over_contexts(make_base: Callable[..., BaselineModel]) -> None:
    base = make_base()
    seen = subject.views(base, EDITS[0], ["One", "Two words"], end=True)
    each = [
        network.keys(base, [row.prompt], [1])[1][0, place]
        for row, place in zip(seen.samples, seen.places, strict=True)
    ]
    torch.testing.assert_close(mean_key(base, seen, 1), torch.stack(each).mean(0), rtol=1e-4, atol=1e-5)


def test_without_a_drift_term_the_search_is_the_same(make_base: Callable[..., BaselineModel]) -> None:
    base = make_base()
    seen = subject.views(base, EDITS[0], (), end=False)
    search = replace(SEARCH, steps=5)
    plain, weighed = (find_delta(base, 0, seen, replace(search, kl=kl)) for kl in (0.0, 1e-12))
    assert plain.norm() > 0
    torch.testing.assert_close(plain, weighed, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("place", ["subject", "last"])
def test_what_stands_before_the_place_need_not_be_read_again(
    make_base: Callable[..., BaselineModel], architecture: str, place: str
) -> None:
    base = make_base(architecture)
    prefixes = ["One", "Two more words"]
    seen = [subject.views(base, one, prefixes, end=True, place=place) for one in EDITS[:3]]
    opened = Opened.read(base, seen, essences=True)
    deltas = torch.randn(3, base.model.config.hidden_size, generator=torch.Generator().manual_seed(1))
    for chosen in (opened, opened.only(torch.tensor([True, False, True]))):
        losses, essences = chosen.losses_with(1, deltas[chosen.active])
        for number, loss, essence in zip(chosen.active.tolist(), losses, essences, strict=True):
            one = seen[number]
            rows = [(*row.prompt, *row.target) for row in one.samples]
            with network.steered(base, 1, (*one.places, one.essence_place), deltas[number]):
                scores = reading.logits(base, [*rows, one.essence])
            torch.testing.assert_close(loss, reading.losses(scores[:-1], one.samples).mean())
            whole = scores[-1, len(one.essence) - 1].log_softmax(-1)
            torch.testing.assert_close(essence, whole, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kl", [0.0, 0.05])
def test_edits_that_are_searched_together_are_searched_each_for_itself(
    make_base: Callable[..., BaselineModel], monkeypatch: pytest.MonkeyPatch, kl: float
) -> None:
    base = make_base()
    monkeypatch.setattr(value, "AT_ONCE", 3)
    seen = [subject.views(base, one, ["One"], end=False) for one in EDITS[:5]]
    search = replace(SEARCH, steps=12, kl=kl, enough=9.86)
    endless = find_deltas(base, 0, seen, replace(search, enough=-1.0))
    alone = torch.stack([find_delta(base, 0, one, search) for one in seen])
    together = find_deltas(base, 0, seen, search)
    stopped = [not torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(alone, endless, strict=True)]
    assert 0 < sum(stopped) < len(seen), "some are enough before others"
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)
