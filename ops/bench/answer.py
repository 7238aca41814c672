"""A whole answer against `transformers.generate` alone, on the same prompt, weights and dtype.

Ours chooses its threads by the work (`hf.choose_threads`); the peer is given one or all, whichever is
faster for it in a turn before. The questions have few forms, as those of programs do, and a form is encoded
once; the questions themselves are encoded each time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from daemon.parts import models
from daemon.settings import Settings
from lte_runtime.answer.answerer import Answerer
from lte_runtime.answer.encoder import load_encoder
from lte_runtime.answer.engine.protocol import AdapterEngine
from lte_runtime.answer.prompt import Prompt
from lte_runtime.answer.scope import gate
from lte_runtime.facts.events import EventLimits, decode
from lte_runtime.memory.edit_memory import EditMemory, EditMemorySettings
from lte_runtime.types import Batch, Position, Question, RawRecord, Scope, TopicPartition
from ops.bench.result import SEED, BenchResult, Spread, interleave, machine, percentile, today
from ops.bench.texts import encoded, events

BAR = "ratio >= 0.9, overhead_ms <= 5"


def run(quick: bool, progress: Callable[[str], None], settings: Settings | None = None) -> BenchResult:
    """`ours` and `peer` are medians in milliseconds; `overhead_ms` is what ours spends outside the model."""
    facts, question_count, repeats = (200, 20, 2) if quick else (2_000, 60, 5)
    settings = settings or Settings()
    with tempfile.TemporaryDirectory() as name:
        progress(f"filling the memory with {facts} facts")
        answerer, engine = new_answerer(Path(name), facts, settings)
        questions = [
            f"What is the {event['relation']} of {event['subject']}?"
            for event in events(question_count, SEED)
        ]
        answers = [answerer.answer(Question(text)) for text in questions]
        in_scope = [i for i, answer in enumerate(answers) if answer.scope is Scope.EDITED]
        prompts = [
            engine.prompt(questions[i], [citation.fact for citation in answers[i].citations]).token_ids
            for i in in_scope
        ]
        lengths = [len(answers[i].token_ids) for i in in_scope]
        texts = [questions[i] for i in in_scope]
        generate = aligned_peer(settings)
        overheads: list[float] = []
        best_threads = torch.get_num_threads()

        def ours() -> float:
            return Spread.of([_timed(answerer, text, overheads) for text in texts]).median

        def peer(threads: int = 0) -> float:
            torch.set_num_threads(threads or best_threads)
            times = []
            for prompt, new in zip(prompts, lengths, strict=True):
                begin = time.perf_counter()
                generate(prompt, new)
                times.append((time.perf_counter() - begin) * 1e3)
            return Spread.of(times).median

        progress(f"{repeats} turns of {len(texts)} questions on each side")
        ours()
        peer()
        best_threads = min(dict.fromkeys((torch.get_num_threads(), 1)), key=peer)
        overheads.clear()
        pair = interleave(ours, peer, repeats, higher=False)
        engine.close()
    return BenchResult(
        name="answer",
        ours=pair.ours.median,
        peer=pair.peer.median,
        ratio=pair.ratios.median,
        unit="ms per answer, p50",
        n=len(texts) * repeats,
        bar=BAR,
        machine=machine(),
        date=today(),
        extra={
            "overhead_ms": percentile(overheads, 0.5),
            "prompt_tokens": percentile([float(len(prompt)) for prompt in prompts], 0.5),
            "new_tokens": percentile([float(length) for length in lengths], 0.5),
            "ratio_spread": pair.ratios.to_json(),
            "dtype": engine.describe()["dtype"],
            "engine": engine.runtime,
            "peer_threads": best_threads,
        },
    )


def _timed(answerer: Answerer, question: str, overheads: list[float]) -> float:
    begin = time.perf_counter()
    answer = answerer.answer(Question(question))
    total_ms = (time.perf_counter() - begin) * 1e3
    overheads.append(total_ms - answer.timings_ms["model"])
    return total_ms


def new_answerer(directory: Path, facts: int, settings: Settings) -> tuple[Answerer, AdapterEngine]:
    """An answerer over a memory of `facts` facts, with the engine of the settings."""
    encoder = load_encoder()
    memory = EditMemory.open(directory / "state", encoder, EditMemorySettings())
    records = [
        RawRecord("bench", Position("bench", 0, offset), None, value, (), 1_700_000_000_000)
        for offset, value in enumerate(encoded(facts, SEED))
    ]
    edits = tuple(decode(record, EventLimits()) for record in records)
    memory.apply(Batch(edits, (), {TopicPartition("bench", 0): facts}))
    engine = models.engine(settings)
    return Answerer(memory, encoder, gate.default_calibration(), engine), engine


def edited_prompts(answerer: Answerer, engine: AdapterEngine, most: int) -> list[Prompt]:
    """Prompts of questions about the first facts of the memory that the gate takes as edited."""
    prompts: list[Prompt] = []
    for event in events(2 * most, SEED):
        text = f"What is the {event['relation']} of {event['subject']}?"
        retrieval = answerer.retrieve(Question(text))
        if retrieval.gate.scope is Scope.EDITED and len(prompts) < most:
            prompts.append(engine.prompt(text, [citation.fact for citation in retrieval.citations]))
    return prompts


def aligned_model(settings: Settings) -> Any:
    """The model of transformers in bf16, with the adapter of the settings merged where there is one."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = models.adapter_directory(settings)
    model: Any = AutoModelForCausalLM.from_pretrained(models.model_directory(settings), dtype=torch.bfloat16)
    if adapter:
        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return model.eval()


def aligned_peer(settings: Settings) -> Callable[[tuple[int, ...], int], None]:
    """`generate` of transformers on the aligned weights, made to give as many tokens as ours."""
    model = aligned_model(settings)

    def generate(tokens: tuple[int, ...], new: int) -> None:
        ids = torch.tensor([tokens])
        with torch.inference_mode():
            model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new,
                           do_sample=False)  # fmt: skip

    return generate
