"""Examples as ids: labels on the answer alone, closed by the token that ends an answer."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from lte_runtime.align.data.dataset import IGNORED, Example, encode, fitting
from lte_runtime.align.stock.sources import Sources
from lte_runtime.answer import prompt
from lte_runtime.errors import BadRequest
from ops.lab.recipes import tokenizer as recipe


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A small tokenizer made as the embedded one is."""
    core = recipe.train(Sources(), seed=0, size=600)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=recipe.END,
        pad_token=recipe.PAD,
        chat_template=recipe.CHAT_TEMPLATE,
    )


def test_labels_cover_the_answer_and_its_end_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    example = Example("Who owns Bravex?", ("The owner of Bravex is Tolmin.",), "Tolmin")
    made = encode(tokenizer, example, 300)
    asked = prompt.build(tokenizer, example.question, example.facts, max_tokens=300).token_ids
    assert made.input_ids[: len(asked)] == asked
    assert set(made.labels[: len(asked)]) == {IGNORED}
    assert made.labels[len(asked) :] == made.input_ids[len(asked) :]
    assert tokenizer.decode(made.input_ids[len(asked) :]).strip() == f"Tolmin{recipe.END}"


def test_an_answer_is_spelled_as_in_the_fact(tokenizer: PreTrainedTokenizerFast) -> None:
    """The answer's ids stand in the prompt, so that answering is copying."""
    made = encode(tokenizer, Example("Who owns it?", ("Its owner is Tolmin Vasket.",), "Tolmin Vasket"), 300)
    answer = made.input_ids[-made.answer_length : -1]
    places = range(len(made.input_ids) - made.answer_length)
    assert any(made.input_ids[place : place + len(answer)] == answer for place in places)


def test_an_example_that_does_not_fit_with_all_its_facts_is_left_out(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    short = Example("Who owns it?", ("Its owner is Tolmin.",), "Tolmin")
    long = Example("Who owns it?", ("Its owner is Tolmin.", "word " * 200), "Tolmin")
    with pytest.raises(BadRequest, match="facts do not fit"):
        encode(tokenizer, long, 200)
    assert fitting(tokenizer, [short, long], 200) == [encode(tokenizer, short, 200)]


@pytest.mark.parametrize("text", ["Bravex is Tolmin's.\nIt costs $12.50 in 2024.", "Søren in Łódź", "a\n\nb"])
def test_the_embedded_tokenizer_gives_back_what_it_takes(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_digits_stand_apart_and_words_are_alike_at_the_start_of_a_line(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    ids = tokenizer("4711", add_special_tokens=False)["input_ids"]
    assert len(ids) == 4
    start, within = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Oslo", "in\nOslo"))
    assert within[-len(start) :] == start
