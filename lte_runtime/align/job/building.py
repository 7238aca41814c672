"""From facts and a base model to the material of rows: the model that speaks, neighbours, knowledge."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lte_runtime.align.data.dataset import TrainingMaterial
from lte_runtime.align.data.facts import FactRecord
from lte_runtime.align.data.pools import KnownFact, Near, Pool, by_vectors, by_words
from lte_runtime.align.job.judge import BaseModel
from lte_runtime.align.presets import Preset
from lte_runtime.align.stock.sources import StockFact, stock_facts
from lte_runtime.answer.engine.tokenizer import load_tokenizer
from lte_runtime.errors import Refused
from lte_runtime.scoring import contains


def load_model(directory: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """The base on its device, frozen."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    loaded = AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    return loaded.requires_grad_(False).eval().to(device)


def load_base_model(
    directory: Path, dtype: torch.dtype, device: torch.device, preset: Preset, halvings: int = 0
) -> BaseModel:
    """The base as it is served, for own answers and for judging."""
    model = load_model(directory, dtype, device)
    context = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 20)
    most = min(preset.own_tokens, context // 4)
    longest = min(preset.max_tokens, context - most)
    tokens = 16_384 if device.type == "cpu" else 32_768
    return BaseModel(model, load_tokenizer(directory), device, most, longest, tokens >> halvings)


def material(
    facts: Sequence[FactRecord],
    anchor: Sequence[FactRecord],
    preset: Preset,
    base_model: BaseModel,
    near: Near,
    seed: int,
) -> TrainingMaterial:
    """Pools of the facts and of the anchor set, each a seeded sample where there are too many, and what the
    base knows."""
    rng = random.Random(f"{seed}:material")
    edits = _sampled(facts, preset.most_facts, rng)
    replay = _sampled(anchor, preset.most_facts, rng)
    return TrainingMaterial(
        Pool.of(edits, near),
        Pool.of(replay, near) if replay else None,
        known_facts(base_model, preset.known, rng),
    )


def _sampled(facts: Sequence[FactRecord], most: int, rng: random.Random) -> tuple[FactRecord, ...]:
    return tuple(facts) if len(facts) <= most else tuple(rng.sample(list(facts), most))


def known_facts(base_model: BaseModel, most: int, rng: random.Random) -> tuple[KnownFact, ...]:
    """Facts of the stock that the base itself answers right in two phrasings, out of `most` that it is asked.

    Right is an answer that contains the value: a chat model speaks in sentences.
    """
    stock = [fact for fact in stock_facts() if relation_of(fact)]
    sample = rng.sample(stock, min(most, len(stock)))
    for place in (0, -1):
        rows = base_model.generate([(fact.questions[place], ()) for fact in sample])
        sample = [
            fact
            for fact, row in zip(sample, rows, strict=True)
            if contains(row.text, (fact.target, *fact.aliases))
        ]
    return tuple(KnownFact(relation_of(fact), fact.subject, fact.target, fact.questions) for fact in sample)


def relation_of(fact: StockFact) -> str:
    """The relation's noun, from the wording `The RELATION of SUBJECT is`; empty where there is none."""
    end = f" of {fact.subject} is"
    clozes = [text for text in fact.questions if text.startswith("The ") and text.endswith(end)]
    return clozes[-1].removeprefix("The ").removesuffix(end) if clozes else ""


def neighbours(way: str) -> tuple[Near, str]:
    """How near facts are found, and its description for the manifest.

    `way` is "words", "encoder" for the default sentence encoder, or another encoder's name or path.
    """
    if way == "words":
        return by_words, "shared words"
    from lte_runtime.answer.encoder import load_encoder

    try:
        encoder = load_encoder() if way == "encoder" else load_encoder(way)
    except (Refused, ImportError) as error:
        print(
            f"no sentence encoder on this host ({error}): near facts are found by shared words instead",
            file=sys.stderr,
        )
        return by_words, "shared words (no encoder on this host)"
    return by_vectors(encoder.encode), f"encoder {encoder.fingerprint}"
