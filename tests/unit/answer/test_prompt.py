"""The prompt: its form, its budget, and that nothing from outside becomes a special token."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_parts import QWEN2
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lte_runtime.answer import prompt
from lte_runtime.answer.engine.tokenizer import load_tokenizer
from lte_runtime.errors import BadRequest
from lte_runtime.templates import templates

CORPUS = [
    "Please acknowledge the updated information: the owner of Bravex is Tolmin. Who owns Bravex now?"
] * 5
CHATML = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_level(special: list[str], added: list[str], **settings: Any) -> PreTrainedTokenizerFast:
    """A small byte-level tokenizer as GPT-2, GPT-NeoX and Qwen2 have it."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    core.add_tokens([AddedToken(text, special=False) for text in added])
    return PreTrainedTokenizerFast(tokenizer_object=core, **settings)


def gpt2() -> PreTrainedTokenizerFast:
    return byte_level(["<|endoftext|>"], [], eos_token="<|endoftext|>", bos_token="<|endoftext|>")


def neox() -> PreTrainedTokenizerFast:
    return byte_level(["<|endoftext|>", "<|padding|>"], ["   "], eos_token="<|endoftext|>")


def qwen2() -> PreTrainedTokenizerFast:
    return byte_level(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        ["<tool_call>", "</tool_call>", "<think>"],
        eos_token="<|endoftext|>",
        chat_template=CHATML,
    )


TOKENIZERS = {
    "gpt2": gpt2(),
    "neox": neox(),
    "qwen2": qwen2(),
    "small": load_tokenizer(QWEN2),
}
SPELLED = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tool_call>",
    "<think>",
    "<|padding|>",
    "<|assistant|>",
    "<|end|>",
    "a",
    " ",
    "\n",
    "<",
    ">",
]
hostile = st.lists(st.sampled_from(SPELLED), min_size=1, max_size=8).map("".join)


@pytest.fixture(params=sorted(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return TOKENIZERS[request.param]


def added_ids(tokenizer: PreTrainedTokenizerFast, ids: tuple[int, ...]) -> list[int]:
    added = set(tokenizer.get_added_vocab().values())
    return [number for number in ids if number in added]


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(TOKENIZERS)), fact=hostile, question=hostile.filter(str.strip))
def test_nothing_from_outside_becomes_a_special_token(name: str, fact: str, question: str) -> None:
    tokenizer = TOKENIZERS[name]
    plain = prompt.build(tokenizer, "q", ["f", "g"], max_tokens=4000)
    made = prompt.build(tokenizer, question, [fact, "g"], max_tokens=4000)
    assert added_ids(tokenizer, made.token_ids) == added_ids(tokenizer, plain.token_ids)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(TOKENIZERS)),
    fact=hostile.filter(str.strip),
    question=hostile.filter(str.strip),
)
def test_the_text_is_kept_letter_by_letter(name: str, fact: str, question: str) -> None:
    tokenizer = TOKENIZERS[name]
    text = tokenizer.decode(prompt.build(tokenizer, question, [fact], max_tokens=4000).token_ids)
    assert (
        f"[Updated Information]:\n{prompt.one_line(fact)}\n\n[Question]:\n{prompt.one_line(question)}" in text
    )


@pytest.mark.parametrize(
    "value",
    [
        "<|end|>",
        "<|im_end|>",
        "a<|end|>b",
        "2\u00a0499,90\u00a0kr",
        "1\u202f349",
        "Bay C | #2 & #3",
        "\U0001f419 9",
    ],
)
def test_a_value_is_the_same_text_behind_the_tokenizer(
    tokenizer: PreTrainedTokenizerFast, value: str
) -> None:
    sentence = f"The stop token of Kestrel is {value}."
    made = prompt.build(tokenizer, "Which?", [sentence], max_tokens=999)
    assert f"\n{sentence}\n" in tokenizer.decode(made.token_ids)


def test_one_fact_is_bare_and_several_are_numbered(tokenizer: PreTrainedTokenizerFast) -> None:
    one = tokenizer.decode(prompt.build(tokenizer, "Who?", ["A is B."], max_tokens=999).token_ids)
    two = tokenizer.decode(prompt.build(tokenizer, "Who?", ["A is B.", "C is D."], max_tokens=999).token_ids)
    assert f"{templates().prompt.introduction}\n\n[Updated Information]:\nA is B.\n\n[Question]:\nWho?" in one
    assert "[Updated Information]:\n1. A is B.\n2. C is D.\n\n[Question]:\nWho?" in two


def test_without_facts_it_is_the_plain_question() -> None:
    assert TOKENIZERS["gpt2"].decode(prompt.build(TOKENIZERS["gpt2"], "Who?", max_tokens=99).token_ids) == (
        "Question: Who?\nAnswer:"
    )


def test_a_chat_template_is_used() -> None:
    made = prompt.build(TOKENIZERS["qwen2"], "Who?", max_tokens=99)
    assert (
        TOKENIZERS["qwen2"].decode(made.token_ids)
        == "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_frame_has_the_ids_of_the_whole_text(tokenizer: PreTrainedTokenizerFast) -> None:
    """Cutting at the spans changes no token of harmless text."""
    made = prompt.build(tokenizer, "Who owns Bravex?", ["The owner is Tolmin.", "It is now."], max_tokens=999)
    whole = tokenizer(tokenizer.decode(made.token_ids), add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(whole) == tokenizer.decode(made.token_ids)
    assert len(made.token_ids) - len(whole) <= 6


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 6), room=st.integers(60, 400))
def test_the_budget_keeps_the_first_facts(count: int, room: int) -> None:
    tokenizer = TOKENIZERS["gpt2"]
    facts = [f"The owner of thing {number} is Tolmin {number}." for number in range(count)]
    made = prompt.build(tokenizer, "Who owns it?", facts, max_tokens=room)
    assert len(made.token_ids) <= room
    text = tokenizer.decode(made.token_ids)
    assert [fact in text for fact in facts] == [place < made.used_facts for place in range(count)]
    if made.used_facts < count:
        assert (
            len(
                prompt.build(
                    tokenizer, "Who owns it?", facts[: made.used_facts + 1], max_tokens=9999
                ).token_ids
            )
            > room
        )


@pytest.mark.parametrize("question", ["", " \n "])
def test_an_empty_question_is_refused(question: str) -> None:
    with pytest.raises(BadRequest, match="empty"):
        prompt.build(TOKENIZERS["gpt2"], question, max_tokens=99)


def test_a_question_over_the_budget_is_refused() -> None:
    with pytest.raises(BadRequest, match="fit"):
        prompt.build(TOKENIZERS["gpt2"], "why " * 200, ["A is B."], max_tokens=100)


def test_ends_come_from_the_tokenizer_and_its_template() -> None:
    qwen = TOKENIZERS["qwen2"]
    assert prompt.ends(qwen) == {
        qwen.convert_tokens_to_ids("<|endoftext|>"),
        qwen.convert_tokens_to_ids("<|im_end|>"),
    }
    assert prompt.ends(TOKENIZERS["gpt2"]) == {TOKENIZERS["gpt2"].eos_token_id}


def test_first_line_cuts_at_the_line_break() -> None:
    assert prompt.first_line(" Tolmin \nmore") == "Tolmin"
    assert prompt.first_line("") == ""


def test_facts_that_do_not_fit_cost_few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = [f"The owner of Bravex {number} is Tolmin." for number in range(500)]
    tried, encoded = [], []
    frame, untrusted = prompt._frame, prompt.untrusted
    monkeypatch.setattr(prompt, "_frame", lambda tok, used: tried.append(used) or frame(tok, used))
    monkeypatch.setattr(prompt, "untrusted", lambda tok, text: encoded.append(text) or untrusted(tok, text))
    for name, tokenizer in TOKENIZERS.items():
        for most in (150, 400, 2_000):
            tried.clear()
            encoded.clear()
            built = prompt.build(tokenizer, "Who owns it?", facts, max_tokens=most)
            assert len(built.token_ids) <= most, name
            more = prompt.render(
                tokenizer,
                prompt._frame(tokenizer, built.used_facts + 1),
                ["Who owns it?", *facts[: built.used_facts + 1]],
                _ids(tokenizer),
            )
            assert len(more) > most, f"{name}: one fact more would fit"
            assert len(tried) <= 12
            assert len(encoded) <= most / 4, "facts behind the budget are not even encoded"


def _ids(tokenizer: PreTrainedTokenizerFast) -> Any:
    return lambda text: prompt.untrusted(tokenizer, text)


def test_thousands_of_special_tokens_are_cut_apart() -> None:
    tokenizer = TOKENIZERS["qwen2"]
    text = "<|im_end|><think>" * 3_000
    barred = set(tokenizer.get_added_vocab().values())
    ids = prompt.untrusted(tokenizer, text)
    assert barred.isdisjoint(ids)
    assert tokenizer.decode(ids) == text
