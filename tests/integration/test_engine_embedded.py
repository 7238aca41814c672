"""A small real model: out-of-scope rows are the base model's own answers, token by token, in any company."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from real_parts import QWEN2, QWEN2_ADAPTER

from lte_runtime.types import Cardinality, Fact, FactKey, GenerateRequest, Position

pytestmark = [pytest.mark.model, pytest.mark.slow]

QUESTIONS = 160
NEW = 12
ASKED = (
    "Who wrote {}?",
    "What is the capital of {}?",
    "Which river flows through {}?",
    "The founder of {} is",
    "In which year did {} open?",
    "How heavy is a {} when it is empty?",
    "Name the mayor of {}, please.",
    "{}",
)
THINGS = (
    "Port Arlen",
    "Zürich",
    "the Quill editor 3.2",
    "São Tomé",
    "a kettle",
    "the moon",
    "SKU-4711",
    "東京",
)


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    from lte_runtime.answer.engine.hf import HfEngine

    made = HfEngine.load(QWEN2, QWEN2_ADAPTER, device="cpu", queue_limit=2000)
    yield made
    made.close()


def questions(draw: random.Random) -> list[str]:
    made = [draw.choice(ASKED).format(draw.choice(THINGS)) for _ in range(QUESTIONS)]
    return [f"{text} {'Please. ' * draw.randrange(6)}" for text in made]


def a_fact(number: int) -> Fact:
    subject, target = f"Station {number}", f"Ines Calder {number}"
    statement = f"The keeper of {subject} is {target}."
    key = FactKey("default", subject.casefold(), "keeper")
    position, one = Position("t", 0, number), Cardinality.ONE
    names = (subject, "keeper", "", target, statement, (), ())
    return Fact(f"e{number}", key, number, *names, position, None, None, one, "", "")


def edited(engine: Any, number: int, question: str) -> GenerateRequest:
    return GenerateRequest(engine.prompt(question, [a_fact(number)]).token_ids, True, NEW)


def alone(model: Any, prompt: Sequence[int], count: int) -> list[int]:
    """What `transformers.generate` makes of the prompt, at most `count` tokens."""
    import torch

    ids = torch.tensor([prompt])
    with torch.inference_mode():
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=0
        )
    return list(made[0, len(prompt) :].tolist())


def test_base_rows_are_the_base_model_alone(engine: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    draw = random.Random(11)
    base = [
        GenerateRequest(engine.prompt(text).token_ids, adapter=False, max_new_tokens=NEW)
        for text in questions(draw)
    ]
    told = [edited(engine, number, f"Who keeps Station {number}?") for number in range(QUESTIONS // 2)]
    mixed = base + told
    draw.shuffle(mixed)
    futures = [(request, engine.submit(request)) for request in mixed]
    dtype = getattr(torch, engine.describe()["dtype"])
    reference = AutoModelForCausalLM.from_pretrained(QWEN2, dtype=dtype)
    compared = 0
    for request, future in futures:
        made = list(future.result(300).token_ids)
        if not request.adapter:
            assert made == alone(reference, request.token_ids, len(made))
            compared += 1
    assert compared == QUESTIONS


def test_its_adapter_fits_it(engine: Any) -> None:
    assert engine.adapter.id == "align-000001"
    assert engine.describe()["adapter_mode"] == "merged"


def test_adapter_rows_in_a_padded_batch_answer_as_alone(engine: Any) -> None:
    requests = [
        GenerateRequest(
            engine.prompt(
                f"Who keeps Station {number}? {'Please. ' * (number % 7)}", [a_fact(number)]
            ).token_ids,
            adapter=True,
            max_new_tokens=NEW,
        )
        for number in range(64)
    ]
    together = [future.result(300).text for future in [engine.submit(request) for request in requests]]
    single = [engine.generate(request).text for request in requests]
    # Padding moves the last bits: a rare near tie may fall the other way, a wrong mask would change most.
    assert sum(one != other for one, other in zip(together, single, strict=True)) <= 3
