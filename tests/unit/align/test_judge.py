"""Answers of a base and of adapters on it, on several architectures, with and without a chat template."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lte_runtime.align import presets
from lte_runtime.align.contract import Probe
from lte_runtime.align.job import building, judge
from lte_runtime.align.job.arms import Arms, serving_arms
from lte_runtime.align.job.judge import BaseModel
from lte_runtime.answer import prompt
from lte_runtime.answer.engine.files import base_fingerprint
from lte_runtime.answer.engine.rows import GenerationRow
from lte_runtime.errors import Damaged
from lte_runtime.types import GenerateRequest
from tests.unit.answer.engine import tiny

QUESTIONS = ["Who runs the observatory?", "What is the price of the kettle?", "Where is Port Arlen in May?"]
FACT = "The price of the Brisk kettle is 51 euros."


def speaker(base: Path, own_tokens: int = 6) -> BaseModel:
    chosen = presets.adjusted(presets.preset("demo"), {"own_tokens": own_tokens, "max_tokens": 200})
    return building.load_base_model(base, torch.float32, torch.device("cpu"), chosen)


@pytest.mark.parametrize(
    ("architecture", "chat"), [("llama", True), ("gpt2", False), ("qwen2", False), ("gpt_neox", True)]
)
def test_batched_answers_are_those_of_each_question_alone(
    architecture: str, chat: bool, tmp_path: Path
) -> None:
    speaking = speaker(tiny.save_model(tmp_path, architecture, chat=chat))
    asked = [(question, (FACT,) if number else ()) for number, question in enumerate(QUESTIONS)]
    together = [row.tokens for row in speaking.generate(asked)]
    assert together == [speaking.generate([one])[0].tokens for one in asked]
    assert all(together)


def test_sureness_is_the_geometric_mean_of_the_tokens_probabilities(tmp_path: Path) -> None:
    speaking = speaker(tiny.save_model(tmp_path))
    own = speaking.own(QUESTIONS, QUESTIONS)
    for question, said in zip(QUESTIONS, own, strict=True):
        ids = list(prompt.build(speaking.tokenizer, question, max_tokens=200).token_ids)
        row = speaking.generate([(question, ())])[0]
        logs = 0.0
        for token in row.tokens:
            with torch.no_grad():
                scores = speaking.model(torch.tensor([ids])).logits[0, -1]
            logs += float(F.log_softmax(scores, -1)[token])
            ids.append(token)
        assert said.text == judge.whole_sentences(row)
        assert said.sure == pytest.approx(math.exp(logs / len(row.tokens)), rel=1e-3)


@pytest.mark.parametrize(
    ("finish", "text", "expected"),
    [
        ("stop", "Nairobi", "Nairobi"),
        ("length", "It is Nairobi. The city has", "It is Nairobi."),
        ("length", "It grew by 4.5 percent! Version 2.", "It grew by 4.5 percent! Version 2."),
        ("length", "The capital of Kenya, which", ""),
    ],
)
def test_an_answer_that_was_cut_keeps_its_whole_sentences(finish: str, text: str, expected: str) -> None:
    row = GenerationRow(GenerateRequest((1,), adapter=False, max_new_tokens=9), lambda _: text, ())
    row.text, row.finish = text, finish
    assert judge.whole_sentences(row) == expected


def arms_of(runtime: str, speaking: judge.BaseModel, base: Path) -> Arms:
    return serving_arms(runtime, base, speaking.model, speaking.device, base_fingerprint(base), threads=1)


@pytest.mark.parametrize("runtime", ["transformers/float32", "openvino/float32"])
def test_each_arm_is_judged_and_the_base_is_left_as_it_was(tmp_path: Path, runtime: str) -> None:
    base = tiny.save_model(tmp_path / "base")
    adapter = tiny.save_adapter(tmp_path / "adapter", base)
    speaking = speaker(base, own_tokens=24)  # fewer are no whole character of this model
    before = [row.tokens for row in speaking.generate([(question, ()) for question in QUESTIONS])]
    told = speaking.generate([(QUESTIONS[0], (FACT,))])[0].text
    probes = [
        Probe("right", "edit_success", QUESTIONS[0], (FACT,), ("nothing", told)),
        Probe("wrong", "edit_success", QUESTIONS[0], (FACT,), ("nothing like it",)),
        Probe("same", "locality", QUESTIONS[1], (), None),
    ]
    ticks: list[tuple[int, int]] = []
    arms = arms_of(runtime, speaking, base)
    assert arms.runtime == runtime
    judged = judge.judge(speaking, arms, {"candidate": adapter}, probes, lambda *at: ticks.append(at))
    assert judged["none"] == {"right": 1, "wrong": 0, "same": 1}
    assert judged["candidate"].keys() == judged["none"].keys()
    assert judged["candidate"] != judged["none"]
    assert ticks[-1] == (6, 6)
    assert [row.tokens for row in speaking.generate([(question, ()) for question in QUESTIONS])] == before


@pytest.mark.parametrize("runtime", ["transformers/float32", "openvino/float32"])
def test_a_damaged_adapter_is_not_judged(tmp_path: Path, runtime: str) -> None:
    base = tiny.save_model(tmp_path / "base")
    adapter = tiny.save_adapter(tmp_path / "adapter", base)
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    speaking = speaker(base)
    with pytest.raises(Damaged):
        judge.judge(speaking, arms_of(runtime, speaking, base), {"candidate": adapter}, [], lambda *_: None)


def test_a_host_without_openvino_judges_by_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny.save_model(tmp_path)
    monkeypatch.setattr("lte_runtime.align.job.arms.find_spec", lambda _name: None)
    assert arms_of("openvino/int8", speaker(base), base).runtime == "transformers/float32"


def test_what_is_known_has_a_relation_that_reads_in_a_question() -> None:
    from lte_runtime.align.stock.sources import stock_facts

    nouns = {building.relation_of(fact) for fact in stock_facts()}
    assert {"capital city", "CEO", "author"} <= nouns
    assert all(noun and not noun.endswith((" is", " by")) for noun in nouns)
