"""The relevance model: a sentence encoder, fine-tuned to read a question and a view at once.

As in Nogueira and Cho, 2019 (arXiv 1901.04085) both texts stand in one sequence, so that each word is read
beside those of the other text. Its head sees the first token and the mean vectors of the two texts.
Embeddings and lower layers are the packaged encoder's; the file holds the layers above them and the head,
matrices as bytes with a scale for each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lte_runtime.answer.encoder.bert_openvino import OpenVinoBert
from lte_runtime.answer.encoder.model_files import DEFAULT_NAMES, ModelFiles, locate, read
from lte_runtime.answer.relevance.protocol import ASKS, HEADS
from lte_runtime.disk import sha256_file
from lte_runtime.errors import Damaged
from lte_runtime.types import Vectors

MOST_TOKENS = 192
"""Tokens that are read of a pair; of a longer one the longer text is cut."""
LIKENESS_SCALE = 20.0
"""The products of two unit vectors are small beside the first token's numbers: they are scaled by this."""
_LENGTH_STEP = 4
_SPLIT_FROM = 4  # fewer pairs are read faster by one core than shared out
_LAYER = "encoder.layer."
HEAD = ("inner.weight", "inner.bias", "outer.weight", "outer.bias", "line")
_SCALE = ".scale"

Floats = npt.NDArray[np.float32]


class CrossEncoder:
    """A `Relevance` on the CPU. `weights`: those of the trained layers, and of the head under `HEAD`."""

    def __init__(self, files: ModelFiles, weights: Mapping[str, Floats], *, precision: str = "auto") -> None:
        layers = {name: array for name, array in weights.items() if name.startswith(_LAYER)}
        self._bert = OpenVinoBert(files, precision=precision, trained=layers)
        self._head = [weights[name] for name in HEAD]
        self._tokenizer = _tokenizer(files)
        self._pad = int(files.config.get("pad_token_id") or 0)

    def odds(self, pairs: Sequence[tuple[str, str]]) -> Vectors:
        """Log-odds [len(pairs), HEADS], computed at once."""
        if not pairs:
            return np.empty((0, HEADS), np.float32)
        rows = self._tokenizer.encode_batch(list(pairs))
        order = sorted(range(len(rows)), key=lambda place: len(rows[place].ids))
        # Short pairs and long ones apart: each core reads one half, and little is padded.
        size = len(rows) if len(rows) < _SPLIT_FROM else -(-len(rows) // self._bert.streams)
        groups = [order[start : start + size] for start in range(0, len(order), size)]
        padded = [self._padded([rows[place] for place in group]) for group in groups]
        batches = [(ids, mask) for ids, mask, _ in padded]
        odds = np.empty((len(rows), HEADS), np.float32)
        for group, tokens, (_, mask, second) in zip(groups, self._bert.run(batches), padded, strict=True):
            odds[group] = self._scores(tokens, mask - second, second)
        return odds

    def _padded(self, rows: Sequence[Any]) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
        """Ids, mask and the places of the second text, all [n, length]."""
        length = -(-max(len(row.ids) for row in rows) // _LENGTH_STEP) * _LENGTH_STEP
        ids = np.full((len(rows), length), self._pad, np.int64)
        mask, second = np.zeros((2, len(rows), length), np.float32)
        for place, row in enumerate(rows):
            count = len(row.ids)
            ids[place, :count], mask[place, :count], second[place, :count] = row.ids, 1.0, row.type_ids
        return ids, mask, second

    def _scores(self, tokens: Vectors, first: Floats, second: Floats) -> Vectors:
        """From token vectors [n, length, d] and the places of both texts [n, length]."""
        question, view = _mean(tokens, first), _mean(tokens, second)
        inner_weight, inner_bias, outer_weight, outer_bias, line = self._head
        pooled = np.concatenate(
            [tokens[:, 0], question * view * LIKENESS_SCALE, np.abs(question - view)], axis=1
        )
        hidden = np.maximum(pooled @ inner_weight.T + inner_bias, 0.0)
        odds = hidden @ outer_weight.T + outer_bias
        odds[:, ASKS] += line[0] * (question * view).sum(axis=1) + line[1]
        return np.asarray(odds, np.float32)


def _mean(tokens: Vectors, places: Floats) -> Floats:
    """Unit mean vectors [n, d] of the tokens at `places` [n, length]."""
    summed: Floats = np.einsum("nld,nl->nd", tokens, places)
    lengths: Floats = np.linalg.norm(summed, axis=1, keepdims=True)
    return np.asarray(summed / np.maximum(lengths, 1e-9), np.float32)


def _tokenizer(files: ModelFiles) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(files.transformer / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MOST_TOKENS)
    return tokenizer


@cache
def load(path: Path, sha256: str, base: str) -> CrossEncoder:
    """The model in `path`, loaded once. Raises `Damaged` where the file has not that hash, or belongs to
    another encoder than the packaged one, whose fingerprint is to be `base`."""
    if not path.is_file() or sha256_file(path) != sha256:
        raise Damaged(f"{path} is not the relevance model that the gate was calibrated with")
    files = read(locate(DEFAULT_NAMES[0]))
    if files.fingerprint != base:
        raise Damaged(
            f"{path} was trained on encoder {base[:12]}, the packaged one is {files.fingerprint[:12]}"
        )
    return CrossEncoder(files, weights_of(path))


def weights_of(path: Path) -> dict[str, Floats]:
    """The arrays of a file, in float32; raises `Damaged` when it cannot be read or lacks the head."""
    try:
        raw = load_file(path)
    except (OSError, SafetensorError) as error:
        raise Damaged(f"{path} is no relevance model: {error}") from error
    weights = {
        name: array.astype(np.float32) * raw[name + _SCALE]
        if name + _SCALE in raw
        else array.astype(np.float32)
        for name, array in raw.items()
        if not name.endswith(_SCALE)
    }
    if not weights.keys() >= set(HEAD):
        raise Damaged(f"{path} holds no head of a relevance model")
    return weights


def save(path: Path, weights: Mapping[str, Floats]) -> None:
    """Writes the weights of the trained layers and the head, see `CrossEncoder`, for `load` to read."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for name, array in weights.items():
        if name.startswith(_LAYER) and array.ndim == 2:
            scale = np.maximum(np.abs(array).max(axis=1, keepdims=True), 1e-9) / 127
            arrays[name] = np.rint(array / scale).astype(np.int8)
            arrays[name + _SCALE] = scale.astype(np.float32)
        else:
            arrays[name] = array.astype(np.float32)
    save_file(arrays, path)
