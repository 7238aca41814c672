"""Network, batches, optimiser and loop on a tiny shape."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from lte_runtime.align.stock.sources import Sources
from ops.lab.recipes import batches, network, trainer
from ops.lab.recipes import tokenizer as recipe_tokenizer
from ops.lab.recipes.batches import END, WeightedTokens, Weights
from ops.lab.recipes.network import Shape, TokenBatch
from ops.lab.recipes.optimizer import orthogonalise, rate
from ops.lab.recipes.rows import PLACE, TextRow

TINY = Shape(vocabulary=64, hidden=32, layers=2, heads=2, kv_heads=2, mlp=48, positions=64)
TINY_QWEN = replace(TINY, kind="qwen2", heads=4)


def token_rows(seed: int, lengths: Sequence[int] = (5, 9, 17, 18)) -> list[WeightedTokens]:
    rng = random.Random(seed)
    return [
        WeightedTokens(
            tuple(rng.randrange(4, 64) for _ in range(n)), (0.0, *(float(i % 2) for i in range(1, n)))
        )
        for n in lengths
    ]


def batch_of(step: int) -> list[TokenBatch]:
    return batches.collate_parts(token_rows(step))


@pytest.mark.parametrize("shape", [TINY, TINY_QWEN], ids=["llama", "qwen2"])
def test_it_computes_what_transformers_computes(shape: Shape) -> None:
    parameters = network.initial(shape, 0)
    config = {
        name: value for name, value in shape.config().items() if name not in ("torch_dtype", "model_type")
    }
    reference = AutoModelForCausalLM.from_config(AutoConfig.for_model(shape.kind, **config)).eval()
    missing, unexpected = reference.load_state_dict(parameters, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    rows = sorted(token_rows(1), key=lambda row: len(row.ids))
    batch = batches.collate(rows)
    states = network.hidden(parameters, shape, batch, network.rope(shape), torch.float32)
    scores = (states @ parameters["model.embed_tokens.weight"].T).detach()
    with torch.no_grad():
        expected = [
            reference(torch.tensor([row.ids])).logits[0, place - 1]
            for row in rows
            for place, weight in enumerate(row.weights)
            if weight > 0
        ]
    torch.testing.assert_close(scores[: len(expected)], torch.stack(expected), atol=1e-5, rtol=1e-4)


def test_batches_choose_the_places_before_counted_tokens() -> None:
    row = WeightedTokens((1, 10, 11, 3, 2, 12, 13, 3), (0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 1.0, 1.0))
    batch = batches.collate([row])
    counted = batch.weights > 0
    assert batch.chosen[counted].tolist() == [4, 5, 6]
    assert batch.targets[counted].tolist() == [12, 13, END]
    assert batch.weights[counted].tolist() == [2.0, 1.0, 1.0]


def test_running_text_counts_at_its_spans_alone() -> None:
    coder = recipe_tokenizer.train(Sources(), seed=0, size=500)
    row = TextRow(lead="Oslo: Tolmin", text="; Oslo: Tolmin; Lima: Ada", spans=((8, 14),))
    encoded = batches.tokens(coder, [], row, Weights())
    counted = [number for number, weight in zip(encoded.ids, encoded.weights, strict=True) if weight > 0]
    assert coder.decode(counted).strip() == "Tolmin"


def test_pieces_stand_in_the_ids_as_they_are() -> None:
    coder = recipe_tokenizer.train(Sources(), seed=0, size=500)
    a, b = chr(PLACE), chr(PLACE + 1)
    row = TextRow(pieces=((400, 401, 402), (410, 411)))
    encoded = batches.tokens(coder, [(f"{a} is {b}.\n{a}?", b)], row, Weights(first=2.0, text=0.5))
    ids, weights = list(encoded.ids), list(encoded.weights)
    places = [place for place, token_id in enumerate(ids) if token_id == 400]
    assert [ids[place : place + 3] for place in places] == [[400, 401, 402]] * 2
    assert weights[places[0] : places[0] + 3] == [0.0, 0.0, 0.0]
    assert weights[places[1] : places[1] + 3] == [0.0, 0.5, 0.5]
    assert (ids[-3:], weights[-3:]) == ([410, 411, END], [2.0, 1.0, 1.0])
    stop = coder.encode("x.", add_special_tokens=False).ids[-1]
    assert ids[ids.index(411) + 1] == stop


def test_answers_are_counted_with_the_first_token_first() -> None:
    coder = recipe_tokenizer.train(Sources(), seed=0, size=500)
    encoded = batches.tokens(coder, [("Who?", "Ada")], TextRow(), Weights(first=2.0, answer=1.0))
    answer_length = len(coder.encode("Ada", add_special_tokens=False).ids)
    assert [weight for weight in encoded.weights if weight] == [2.0] + [1.0] * answer_length
    assert encoded.weights[: -answer_length - 1] == (0.0,) * (len(encoded.weights) - answer_length - 1)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_of_a_batch_hold_every_row_once(parts: int) -> None:
    rows = token_rows(2, (4, 7, 9, 12, 15, 16))
    split = batches.collate_parts(rows, parts)
    assert len(split) == parts
    assert sum(group.rows for part in split for group in part.groups) == len(rows)
    assert sum(float(part.weights.sum()) for part in split) == sum(sum(row.weights) for row in rows)


@pytest.mark.parametrize(("total", "all_fit"), [(96, True), (52, False), (24, False)])
def test_a_batch_of_a_set_size_leaves_out_what_finds_no_room(total: int, all_fit: bool) -> None:
    rows = token_rows(3, (4, 7, 9, 12, 15, 16))
    batch = batches.collate(rows, total=total)
    assert len(batch.ids) == len(batch.positions) == total
    assert 0 < sum(group.rows for group in batch.groups) <= len(rows)
    assert (sum(group.rows for group in batch.groups) == len(rows)) is all_fit


def test_processes_make_the_same_batches_as_a_thread(tmp_path: Path) -> None:
    plan = trainer.TrainingPlan(steps=4, every=4, dtype=torch.float32)
    losses = [
        [
            progress.loss
            for progress in trainer.run(trainer.start(TINY, 0), TINY, run_plan, batch_of, tmp_path / "a.pt")
        ]
        for run_plan in (plan, replace(plan, workers=2))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_seldom_reported_progress_gives_means(tmp_path: Path) -> None:
    plan = trainer.TrainingPlan(steps=6, every=100, dtype=torch.float32)
    single_steps, means = (
        list(trainer.run(trainer.start(TINY, 0), TINY, run_plan, batch_of, tmp_path / "a.pt"))
        for run_plan in (plan, replace(plan, report_every=3))
    )
    assert [progress.step for progress in means] == [3, 6]
    assert means[1].loss == pytest.approx(sum(progress.loss for progress in single_steps[3:]) / 3, rel=1e-5)


def test_a_resumed_run_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    plan = trainer.TrainingPlan(steps=6, every=3, dtype=torch.float32)
    uninterrupted = [
        progress.loss
        for progress in trainer.run(trainer.start(TINY, 0), TINY, plan, batch_of, tmp_path / "a.pt")
    ]
    interrupted = trainer.run(trainer.start(TINY, 0), TINY, plan, batch_of, tmp_path / "b.pt")
    before_stop = [next(interrupted).loss for _ in range(4)]
    interrupted.close()
    state = trainer.resume(tmp_path / "b.pt")
    assert state.step == 3
    resumed = [progress.loss for progress in trainer.run(state, TINY, plan, batch_of, tmp_path / "b.pt")]
    assert before_stop[:3] + resumed == pytest.approx(uninterrupted, rel=1e-6)


def test_a_kill_while_saving_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "base.pt"
    state = trainer.start(TINY, 0)
    trainer.save(state, path)
    path.with_suffix(".part").write_bytes(b"half a file")
    assert trainer.resume(path).step == 0


def test_a_polish_starts_from_exported_weights(tmp_path: Path) -> None:
    before = trainer.start(TINY, 0)
    save_file({name: value.detach() for name, value in before.parameters.items()}, tmp_path / "w.safetensors")
    after = trainer.start_from_weights(tmp_path / "w.safetensors", seed=0)
    assert after.step == 0
    unchanged = [name for name in after.parameters if "embed_tokens" not in name]
    assert all(torch.equal(after.parameters[name], before.parameters[name]) for name in unchanged)
    assert all(value.requires_grad for value in after.parameters.values())


def test_crowded_embeddings_are_spread_and_others_stay() -> None:
    drawn = torch.Generator().manual_seed(0)
    apart = torch.randn(20, 64, generator=drawn)
    crowd = torch.randn(1, 64, generator=drawn) + 0.3 * torch.randn(30, 64, generator=drawn)
    embeddings = torch.cat([apart, crowd])
    assert network.spread(embeddings, seed=1) == 30
    assert torch.equal(embeddings[:20], apart)
    torch.testing.assert_close(embeddings[20:].norm(dim=1), crowd.norm(dim=1))
    plain = torch.nn.functional.normalize(embeddings, dim=1)
    assert (plain @ plain.T).fill_diagonal_(0.0).max() < 0.9
    assert network.spread(embeddings[:20].clone(), seed=1) == 0


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    plan = trainer.TrainingPlan(steps=40, every=1000, dtype=torch.float32)
    losses = [
        done.loss
        for done in trainer.run(
            trainer.start(TINY, 0), TINY, plan, lambda _: batch_of(0), tmp_path / "base.pt"
        )
    ]
    assert losses[-1] < 0.8 * losses[0]


def test_orthogonalised_matrices_have_like_singular_values() -> None:
    orthogonal = orthogonalise(torch.randn(3, 24, 8, generator=torch.Generator().manual_seed(0)))
    values = torch.linalg.svdvals(orthogonal)
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_the_rate_warms_up_stays_and_falls_to_zero() -> None:
    assert rate(0, 0.0) == pytest.approx(0.02)
    assert rate(300, 0.3) == 1.0
    assert rate(750, 0.75) == pytest.approx(0.5)
    assert rate(1000, 1.0) == 0.0
    assert rate(1000, 0.9, decay=0.0) == 1.0


def test_a_run_by_the_clock_ends_and_saves(tmp_path: Path) -> None:
    plan = trainer.TrainingPlan(steps=10**9, every=10**9, seconds=0.5, dtype=torch.float32)
    for done in trainer.run(trainer.start(TINY, 0), TINY, plan, batch_of, tmp_path / "a.pt"):
        last = done.step
    assert 0 < last < 10**9
    assert trainer.resume(tmp_path / "a.pt").step == last


def test_a_batch_is_read_as_it_was_written(tmp_path: Path) -> None:
    batch = batches.collate(token_rows(4), total=64)
    batches.save(batch, tmp_path / "0.pt")
    read = batches.load(tmp_path / "0.pt")
    assert read.groups == batch.groups
    assert all(torch.equal(getattr(read, name), getattr(batch, name)) for name in batches.TENSORS)
