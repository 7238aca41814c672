"""How an adapter is trained, as plain values: presets and commands read them without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How an adapter is trained.

    `batch` rows make an update, over all processes; `first` weighs an answer's first token; an answer of more
    than `long_answer` tokens weighs as much as one of so many (0: by its length). `budget` bounds the padded
    tokens of one forward pass (0: as many as make two groups for each thread), halved `halvings` times where
    memory was short. Every `every` updates a checkpoint is written and the held-out rows are measured; after
    `patience` measures without a gain training ends, and the best checkpoint is kept. `recompute` makes
    activations again in the backward pass; `fused` uses the layers of `fused.py` on a GPU.
    """

    rank: int = 16
    alpha: int = 32
    rate: float = 7e-4
    warm: int = 20
    batch: int = 64
    first: float = 2.0
    long_answer: int = 0
    threads: int = 2
    seed: int = 0
    epochs: int = 1
    budget: int = 0
    bf16: bool = True
    every: int = 50
    patience: int = 3
    recompute: bool = False
    fused: bool = True
    halvings: int = 0
