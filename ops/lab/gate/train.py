"""Trains the relevance model: the packaged sentence encoder, fine-tuned to read question and view at once.

`lte gate train --data FOLDER --out FOLDER`. Embeddings and the lower layers stay as they are; what is trained
ships in a file of its own. After each epoch the checkpoint, the file and their figures are written.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lte_runtime.answer.encoder.model_files import DEFAULT_NAMES, ModelFiles, locate, read
from lte_runtime.answer.relevance import cross_encoder
from lte_runtime.answer.relevance.protocol import ASKS, BEYOND, EARLIER, HEADS
from lte_runtime.answer.scope.gate import GateCalibration
from lte_runtime.disk import sha256_file
from lte_runtime.progress import Progress, silent
from lte_runtime.types import Encoder
from ops.lab.gate import shared_pairs
from ops.lab.gate.pairs import Pair, Pairs, likeness_by, view_of
from ops.lab.gate.topics import half, similar, topics

HIDDEN = 128
"""Units between the pooled vectors and the heads."""
HEAD_WEIGHTS = (1.0, 0.7, 0.8)
"""How much the loss of each head counts, in the order of the protocol's columns."""
MODEL_FILE = "cross_encoder.safetensors"
_MOST_TOKENS = 96  # of a training pair; all are shorter
_HELD = 2_500  # pairs of relations held back, of which figures are made
_HELD_SEED = 99
_JUDGED_AT_ONCE = 64

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Schedule:
    """`frozen` lower layers; `rate` of AdamW for the layers, `head_rate` for the head; both fall to nothing.

    With `half` only every other relation is trained on, and the others are judged.
    """

    epochs: int = 10
    batch: int = 48
    rate: float = 6e-5
    head_rate: float = 1e-3
    frozen: int = 1
    warm_up: float = 0.06
    decay: float = 0.01
    smoothing: float = 0.02
    seed: int = 0
    threads: int = 2
    half: bool = False


def run(
    out: Path,
    encoder: Encoder,
    how: Schedule,
    *,
    shared: Path | None = None,
    near: Path | None = None,
    start: Path | None = None,
    progress: Progress = silent,
) -> list[dict[str, float]]:
    """Trains and writes to `out`; the figures of each epoch.

    `encoder` tells which relations are alike. `shared` is a folder with `knowedit/` and `pararel/`, `near` a
    file of facts with near questions for figures, `start` a checkpoint to go on from, or a file as it ships.
    """
    import torch

    torch.set_num_threads(how.threads)
    out.mkdir(parents=True, exist_ok=True)
    files = read(locate(DEFAULT_NAMES[0]))
    model, tokens = network(files, how.frozen), Tokens(files)
    if start:
        model.load_state_dict(start_state(model, start))
    known = topics()
    likeness = similar(known, encoder.encode), likeness_by(known, encoder.encode)
    trained = Pairs(known, *likeness, lambda noun: not how.half or half(noun) == 0)
    held = Pairs(known, *likeness, lambda noun: half(noun) == 1).epoch(_HELD_SEED)[:_HELD] if how.half else []
    figures: list[dict[str, float]] = []

    def after(epoch: int) -> None:
        torch.save(model.state_dict(), out / "checkpoint.pt")
        export(model, files, out, how.frozen)
        figures.append({"epoch": epoch, **judge(model, tokens, held, near)})
        (out / "figures.json").write_text(json.dumps(figures, indent=1), "utf-8")

    train(model, tokens, _epochs(trained, how, shared), how, after, progress)
    return figures


def start_state(model: Any, start: Path) -> dict[str, Any]:
    """The module's state by a checkpoint, or by a file as it ships over the packaged encoder."""
    import torch

    if start.suffix != ".safetensors":
        checkpoint: dict[str, Any] = torch.load(start, weights_only=True)
        return checkpoint
    weights = cross_encoder.weights_of(start)
    state: dict[str, Any] = model.state_dict()
    for name in state:
        if (shipped := weights.get(name.removeprefix("bert."))) is not None:
            state[name] = torch.from_numpy(shipped)
    return state


def _epochs(trained: Pairs, how: Schedule, shared: Path | None) -> Iterator[list[Pair]]:
    """The pairs of each epoch; of KnowEdit half, in turn."""
    knowedit = shared_pairs.knowedit_pairs(shared / "knowedit") if shared else []
    for epoch in range(how.epochs):
        pairs = [*trained.epoch(how.seed * 100 + epoch), *knowedit[epoch % 2 :: 2]]
        yield pairs + (shared_pairs.pararel_pairs(shared / "pararel", epoch) if shared else [])


def network(files: ModelFiles, frozen: int) -> Any:
    """The module to train: ids, mask and segment [n, length] to log-odds [n, HEADS], as `CrossEncoder`."""
    import torch
    from torch.nn import functional
    from transformers import AutoModel

    def mean(rows: Any, places: Any) -> Any:
        return functional.normalize((rows * places.unsqueeze(-1).float()).sum(1), dim=-1)

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = AutoModel.from_pretrained(
                files.transformer, local_files_only=True, dtype=torch.float32
            )
            self.inner = torch.nn.Linear(3 * self.bert.config.hidden_size, HIDDEN)
            self.outer = torch.nn.Linear(HIDDEN, HEADS)
            torch.nn.init.normal_(self.outer.weight, std=0.02)
            # At first a pair is as relevant as its mean vectors are alike.
            self.line = torch.nn.Parameter(torch.tensor([8.0, -5.0]))
            self.bert.embeddings.requires_grad_(requires_grad=False)
            for layer in self.bert.encoder.layer[:frozen]:
                layer.requires_grad_(requires_grad=False)

        def forward(self, ids: Any, mask: Any, segment: Any) -> Any:
            types = torch.zeros_like(ids)
            rows = self.bert(
                input_ids=ids, attention_mask=mask, token_type_ids=types
            ).last_hidden_state.float()
            question, view = mean(rows, mask * (1 - segment)), mean(rows, mask * segment)
            products = question * view * cross_encoder.LIKENESS_SCALE
            pooled = torch.cat([rows[:, 0], products, (question - view).abs()], dim=1)
            odds = self.outer(functional.relu(self.inner(pooled)))
            alike = self.line[0] * (question * view).sum(1, keepdim=True) + self.line[1]
            return odds + functional.pad(alike, (ASKS, HEADS - 1 - ASKS))

    return Network()


class Tokens:
    """Pairs as the model reads them."""

    def __init__(self, files: ModelFiles) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(files.transformer / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_MOST_TOKENS)

    def batch(self, texts: Sequence[tuple[str, str]]) -> Sequence[Any]:
        """Ids, mask and segment [n, length] as tensors."""
        import torch

        rows = self._tokenizer.encode_batch(list(texts))
        parts = np.zeros((3, len(rows), max(len(row.ids) for row in rows)), np.int64)
        for place, row in enumerate(rows):
            parts[:, place, : len(row.ids)] = row.ids, row.attention_mask, row.type_ids
        return [torch.from_numpy(part) for part in parts]

    def lengths(self, texts: Sequence[tuple[str, str]]) -> npt.NDArray[np.int64]:
        """Tokens of each pair."""
        return np.array([len(row.ids) for row in self._tokenizer.encode_batch(list(texts))])


def _texts(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    return [(pair.question, pair.view) for pair in pairs]


def _batches(
    pairs: Sequence[Pair], tokens: Tokens, size: int, draw: np.random.Generator
) -> list[Sequence[Pair]]:
    """Batches of about one length, so that little is padded, in random order."""
    order = np.argsort(tokens.lengths(_texts(pairs)) + 4 * draw.random(len(pairs)))
    groups = [[pairs[place] for place in order[start : start + size]] for start in range(0, len(order), size)]
    return [groups[place] for place in draw.permutation(len(groups))]


def train(
    model: Any,
    tokens: Tokens,
    epochs: Iterable[Sequence[Pair]],
    how: Schedule,
    after: Callable[[int], None],
    progress: Progress = silent,
) -> None:
    """AdamW on the cross-entropy of each head, in bf16; `after` is called with the number of each epoch."""
    import torch

    torch.manual_seed(how.seed)
    draw = np.random.default_rng(how.seed)
    layers = [p for p in model.bert.parameters() if p.requires_grad]
    head = [*model.inner.parameters(), *model.outer.parameters(), model.line]
    rates = (how.rate, how.head_rate)
    groups = [{"params": part, "lr": rate} for part, rate in zip((layers, head), rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=how.decay)
    for epoch, pairs in enumerate(epochs):
        batches = _batches(pairs, tokens, how.batch, draw)
        model.train()
        for step, batch in enumerate(batches):
            share = (epoch + step / len(batches)) / how.epochs
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * min(1.0, (share + 1e-3) / how.warm_up) * max(0.02, 1.0 - share)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                odds = model(*tokens.batch(_texts(batch)))
            optimizer.zero_grad()
            _loss(odds.float(), batch, how.smoothing).backward()
            torch.nn.utils.clip_grad_norm_([*layers, *head], 1.0)
            optimizer.step()
            progress(f"epoch {epoch}", step + 1, len(batches))
        after(epoch)


def _loss(odds: Any, batch: Sequence[Pair], smoothing: float) -> Any:
    import torch

    labels = torch.tensor([[pair.asks, pair.earlier, pair.beyond] for pair in batch])
    labels = labels * (1 - smoothing) + smoothing / 4
    weights = torch.tensor([pair.weight for pair in batch])[:, None] * torch.tensor(HEAD_WEIGHTS)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(odds, labels, reduction="none")
    return (losses * weights).sum(1).mean()


def scores(model: Any, tokens: Tokens, texts: Sequence[tuple[str, str]]) -> Floats:
    """Log-odds [n, HEADS]."""
    import torch

    model.eval()
    order = np.argsort(tokens.lengths(texts))
    odds = np.zeros((len(texts), HEADS), np.float32)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        for start in range(0, len(order), _JUDGED_AT_ONCE):
            rows = order[start : start + _JUDGED_AT_ONCE]
            odds[rows] = model(*tokens.batch([texts[row] for row in rows])).float().numpy()
    return odds


def export(model: Any, files: ModelFiles, folder: Path, frozen: int) -> GateCalibration:
    """Writes what was trained for the serving code, and a calibration to start from that names it."""
    state = {name.removeprefix("bert."): array.float().numpy() for name, array in model.state_dict().items()}
    own = {name: array for name, array in state.items() if _is_trained(name, frozen)}
    path = folder / MODEL_FILE
    cross_encoder.save(path, own)
    base = files.fingerprint
    named = GateCalibration(base, 0.5, model=str(path), model_sha256=sha256_file(path), model_base=base)
    (folder / "base.json").write_text(named.to_json(), "utf-8")
    return named


def _is_trained(name: str, frozen: int) -> bool:
    parts = name.split(".")
    return name in cross_encoder.HEAD or (parts[:2] == ["encoder", "layer"] and int(parts[2]) >= frozen)


def judge(model: Any, tokens: Tokens, held: Sequence[Pair], near: Path | None) -> dict[str, float]:
    """Figures on pairs of relations that were held back, and on the near questions of a file by language."""
    figures = _held_figures(scores(model, tokens, _texts(held)), held) if held else {}
    if near:
        rows = list(_near_questions(near))
        odds = scores(model, tokens, [(question, view) for _, question, view, _ in rows])[:, ASKS]
        asks = np.array([asks for *_, asks in rows])
        for language in sorted({row[0] for row in rows}):
            own = np.array([row[0] == language for row in rows])
            figures[f"near {language}: auc"] = auc(odds[own & asks], odds[own & ~asks])
            figures[f"near {language}: open at 95"] = above(odds[own & asks], odds[own & ~asks])
    return {name: round(value, 4) for name, value in figures.items()}


def _held_figures(odds: Floats, held: Sequence[Pair]) -> dict[str, float]:
    places: dict[str, list[int]] = defaultdict(list)
    for place, pair in enumerate(held):
        places[pair.sort].append(place)
    right = odds[places.pop("asks"), ASKS]
    figures = {f"auc {sort}": auc(right, odds[own, ASKS]) for sort, own in places.items() if sort != "chain"}
    figures["above other"] = above(right, odds[places["other"], ASKS])
    for sort, head in (("earlier", EARLIER), ("beyond", BEYOND)):
        others = [place for place, pair in enumerate(held) if not getattr(pair, sort)]
        figures[f"auc of {sort} head"] = auc(odds[places[sort], head], odds[others, head])
    return figures


def _near_questions(path: Path) -> Iterator[tuple[str, str, str, bool]]:
    """(language, question, view, whether it asks) of facts with near questions, without names."""
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        event = row["event"]
        names = [event["subject"], *event.get("subject_aliases", ())]
        for text, asks in [(row["question"], True), *((n, False) for n in row["near"])]:
            masked = (shared_pairs.without(text, name) for name in names)
            question = next((question for question in masked if question), text)
            yield row["language"], question, view_of(event["relation"]), asks


def auc(right: Floats, wrong: Floats) -> float:
    """Area under the curve of `right` scores against `wrong` ones."""
    n, m = len(right), len(wrong)
    if not n or not m:
        return math.nan
    order = np.argsort(np.concatenate([right, wrong]), kind="stable")
    ranks = np.empty(n + m)
    ranks[order] = np.arange(1, n + m + 1)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def above(right: Floats, wrong: Floats, closed: float = 0.95) -> float:
    """Share of `right` above the quantile `closed` of `wrong`."""
    return float((right > np.quantile(wrong, closed)).mean()) if len(right) and len(wrong) else math.nan
