"""Guesses from the prompt, and greedy decoding that checks them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lte_runtime.answer.engine import greedy, lookup
from lte_runtime.answer.engine.rows import GenerationRow
from lte_runtime.answer.engine.torch_session import TorchSession
from lte_runtime.types import GenerateRequest
from tests.unit.answer.engine import tiny


@pytest.mark.parametrize(
    ("tokens", "guessed"),
    [
        ([1, 2, 3, 4, 5, 2], [3, 4, 5]),
        ([1, 2, 9, 3, 2, 8, 3, 2], [8, 3, 2]),
        ([7, 2, 9, 7, 2, 8, 7, 2], [9, 7, 2]),
        ([1, 2, 3], []),
        ([1], []),
        ([], []),
    ],
)
def test_the_longest_then_the_earliest_match(tokens: list[int], guessed: list[int]) -> None:
    assert lookup.guess(tokens, {}, most=3) == guessed


def test_a_word_is_found_with_and_without_its_blank() -> None:
    assert lookup.guess([10, 11, 12, 99, 1], {10: 1}, most=2) == [11, 12]


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=40), st.integers(0, 8))
def test_guesses_come_from_the_tokens_and_are_few(tokens: list[int], most: int) -> None:
    guessed = lookup.guess(tokens, {}, most)
    assert len(guessed) <= most
    joined = ",".join(map(str, tokens))
    assert ",".join(map(str, guessed)) in joined


def test_same_words_knows_the_blank() -> None:
    tokenizer = tiny.tokenizer()
    words = lookup.same_words(tokenizer)
    plain, blank = (tokenizer.convert_tokens_to_ids(piece) for piece in ("o", "Ġo"))
    if blank is not None and blank != tokenizer.unk_token_id:
        assert words[blank] == plain
    assert all(smaller < larger for larger, smaller in words.items())


class Copier:
    """A model that goes on with a fixed text after its prompt; keeps a real cache and counts its passes."""

    def __init__(self, prompt: list[int], text: list[int]) -> None:
        self.script = prompt + text
        self.passes = 0

    def __call__(self, input_ids: Any, past_key_values: Any, logits_to_keep: int, **_: Any) -> Any:
        self.passes += 1
        seen, width = past_key_values.get_seq_length(), input_ids.shape[1]
        states = torch.zeros(1, 1, width, 1)
        past_key_values.update(states, states, 0)
        after = [self.script[seen + i + 1] if self._follows(input_ids, seen, i) else 0 for i in range(width)]
        logits = torch.nn.functional.one_hot(torch.tensor([after]), 100).float()
        return SimpleNamespace(logits=logits[:, -logits_to_keep:])

    def _follows(self, input_ids: Any, seen: int, index: int) -> bool:
        end = seen + index + 1
        given = input_ids[0, : index + 1].tolist()
        return end < len(self.script) and given == self.script[seen:end]


@pytest.fixture
def run() -> Callable[..., tuple[GenerationRow, Copier]]:
    def make(prompt: list[int], text: list[int], limit: int = 50) -> tuple[GenerationRow, Copier]:
        config = tiny.config("llama")
        config.num_hidden_layers = 1
        model = Copier(prompt, [*text, 0])
        request = GenerateRequest(tuple(prompt), True, limit)
        row, done = (
            GenerationRow(request, lambda tokens: " ".join(map(str, tokens)), {0}),
            list[GenerationRow](),
        )
        greedy.generate_copying(TorchSession(model, config, torch.device("cpu")), row, done.append, {})
        assert done == [row]
        return row, model

    return make


def test_a_copied_span_costs_few_passes(run: Callable[..., tuple[GenerationRow, Copier]]) -> None:
    fact = [11, 12, 13, 14, 15, 16]
    row, model = run([5, 6, *fact, 7, 8, 9], fact)
    assert row.tokens == [*fact, 0]
    assert model.passes == 2


def test_what_is_no_copy_is_made_token_by_token(run: Callable[..., tuple[GenerationRow, Copier]]) -> None:
    row, model = run([5, 6, 7], [20, 21, 22])
    assert (row.tokens, model.passes) == ([20, 21, 22, 0], 4)


def test_wrong_guesses_leave_no_trace(run: Callable[..., tuple[GenerationRow, Copier]]) -> None:
    row, _ = run([11, 12, 13, 14, 15, 11, 50, 9], [11, 12, 30, 31, 11, 50, 32, 12, 13, 40])
    assert row.tokens == [11, 12, 30, 31, 11, 50, 32, 12, 13, 40, 0]


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=20),
    st.lists(st.integers(1, 6), max_size=20),
    st.integers(1, 25),
)
def test_tokens_are_those_of_plain_greedy(prompt: list[int], text: list[int], limit: int) -> None:
    config = tiny.config("llama")
    config.num_hidden_layers = 1
    row = GenerationRow(GenerateRequest(tuple(prompt), True, limit), lambda _: "", {0})
    model = Copier(prompt, [*text, 0])
    greedy.generate_copying(TorchSession(model, config, torch.device("cpu")), row, lambda _: None, {})
    assert row.tokens == [*text, 0][:limit]
