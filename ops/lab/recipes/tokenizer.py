"""The small model's tokenizer: byte-level BPE, digits apart, words alike at a line's start and within it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from lte_runtime.align.stock.sources import Sources
from ops.lab.recipes.generator import Generator
from ops.lab.recipes.rows import VOCABULARY

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
SPECIAL = (PAD, USER, ASSISTANT, END)
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train(sources: Sources, seed: int, size: int = VOCABULARY) -> Tokenizer:
    """A tokenizer of `size` entries from the sources and a sample of the stream."""
    tokenizer = Tokenizer(models.BPE())
    # A line's first word gets the space that it would have within the line, so that a name has one form.
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Prepend(" "),
            normalizers.Replace(Regex(r"^ (?=\s)"), ""),
            normalizers.Replace(Regex(r"\n(?=\S)"), "\n "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Replace("\n ", "\n"), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(sources, seed), trainer)
    return tokenizer


def _corpus(sources: Sources, seed: int) -> Iterator[str]:
    rng = random.Random(f"{seed}:tokenizer")
    for fact in sources.stock:
        yield from (f"{question} {fact.target}" for question in fact.questions)
    yield from sources.texts
    yield from (f"{question} {answer}" for question, answer in sources.open_questions)
    yield from (f"{record.text} {record.target}" for record in sources.edits)
    yield from (*sources.subjects, *sources.objects)
    for row in Generator(sources).rows(rng, (("reading", 0.8), ("edit", 0.2)), 12_000):
        yield " ".join([*row.facts, *(f"{turn.user} {turn.answer}" for turn in row.turns)])


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json` (with the chat template) for transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 1024,
        "pad_token": PAD,
        "eos_token": END,
        "additional_special_tokens": [USER, ASSISTANT],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
