"""Tiny random models of several architectures, with tokenizer and adapters, on disk as real ones are."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from lte_runtime.answer.engine.files import base_fingerprint

SENTENCES = [
    "The harbour master of Port Arlen is Ines Calder.",
    "Who runs the observatory on Mount Sedge?",
    "The price of the Brisk kettle rose to 49 euros in May.",
    "Version 3.2.1 of the Quill editor came out on a Tuesday.",
    "Zürich, Łódź and São Paulo are cities; 東京 is one too.",
] * 4
END = "<|end|>"
SIZES = {"vocab_size": 600, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def config(architecture: str) -> Any:
    if architecture == "gpt2":
        return GPT2Config(**SIZES, n_embd=32, n_layer=2, n_head=4, n_positions=256)
    if architecture == "gpt_neox":
        return GPTNeoXConfig(
            **SIZES,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=256,
        )
    kind = {"llama": LlamaConfig, "qwen2": Qwen2Config}[architecture]
    return kind(
        **SIZES,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )


def tokenizer(*, chat: bool = False) -> PreTrainedTokenizerFast:
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=[END], initial_alphabet=alphabet)
    bare.train_from_iterator(SENTENCES, trainer)
    whole = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token=END, pad_token=END)
    if chat:
        whole.chat_template = CHAT
    return whole


def save_model(directory: Path, architecture: str = "llama", *, chat: bool = False, seed: int = 0) -> Path:
    """A random model whose next tokens depend on its prompt (weights ten times the usual spread)."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config(architecture))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
    model.save_pretrained(directory)
    tokenizer(chat=chat).save_pretrained(directory)
    return directory


def targets(architecture: str) -> list[str]:
    return {
        "gpt2": ["c_attn", "attn.c_proj", "mlp.c_proj", "c_fc"],
        "gpt_neox": ["query_key_value", "dense_h_to_4h", "dense_4h_to_h"],
    }.get(architecture, ["q_proj", "v_proj", "o_proj", "down_proj"])


def save_adapter(directory: Path, base: Path, architecture: str = "llama", *, seed: int = 1) -> Path:
    """An adapter as peft writes it, with random halves, and a manifest beside it."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=targets(architecture),
        init_lora_weights=False,
        fan_in_fan_out=architecture == "gpt2",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        get_peft_model(model, settings).save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)
    write_manifest(directory, base_fingerprint(base))
    return directory


def write_manifest(directory: Path, fingerprint: str, **changes: Any) -> None:
    names = ["adapter_config.json", "adapter_model.safetensors"]
    files = {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in names}
    manifest = {"id": "align-000001", "base_fingerprint": fingerprint, "files": files, **changes}
    (directory / "manifest.json").write_text(json.dumps(manifest))


def rewrite_tensors(directory: Path, change: Any) -> None:
    """Passes the adapter's tensors through `change` and makes the manifest agree again."""
    path = directory / "adapter_model.safetensors"
    tensors = change(dict(load_file(path)))
    save_file(tensors, path)
    old = json.loads((directory / "manifest.json").read_text())
    write_manifest(directory, old["base_fingerprint"])
