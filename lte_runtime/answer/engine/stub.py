"""An engine without a model: deterministic, started at once, for the many cheap trials."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from lte_runtime.answer.engine.files import read_tensors, verify_adapter
from lte_runtime.answer.engine.protocol import EngineStats
from lte_runtime.answer.engine.rows import GenerationRow
from lte_runtime.answer.engine.versions import Versions
from lte_runtime.answer.engine.worker import Worker
from lte_runtime.answer.prompt import Prompt
from lte_runtime.errors import BadRequest
from lte_runtime.types import AdapterRef, Fact, GenerateRequest, Generation, Turn

STUB_FINGERPRINT = hashlib.sha256(b"stub model").hexdigest()
STUB_ADAPTER = AdapterRef("align-000000", hashlib.sha256(b"stub adapter").hexdigest())
_END = 0
# Bytes in one token, so that the usual limit on new tokens cuts no target short.
_WIDTH = 7
_TEXT = (1 << 8 * _WIDTH) - 1
# The wire has 63 bits for a token.
_NUMBERS = 127


@dataclass
class _Weights:
    """What stands for an adapter's weights: read again for each token, as a model reads them in each pass."""

    number: int


def _number(ref: AdapterRef) -> int:
    return int(ref.id.rpartition("-")[2]) % _NUMBERS if ref.id[-1:].isdigit() else 0


def made_by(token: int) -> int:
    """The number (modulo 127) of the adapter that made a token of the stub; 0 for base and end."""
    return token >> 8 * _WIDTH


class StubEngine:
    """Prompt tokens are UTF-8 bytes, answer tokens seven of them.

    With an adapter and a fact it answers the last fact's target, else `base-` and a hash of the question.
    Every token says in its high bits which adapter made it (`made_by`). `token_s` makes each token take long.
    """

    def __init__(
        self,
        *,
        adapter: AdapterRef | None = STUB_ADAPTER,
        max_batch: int = 8,
        queue_limit: int = 256,
        token_s: float = 0.0,
    ) -> None:
        self._token_s = token_s
        self._versions = Versions(_Weights(0))
        if adapter is not None:
            self._versions.add(adapter, _Weights(_number(adapter)))
            self._versions.switch(adapter.id)
        self._worker = Worker(
            self._run, versions=self._versions, max_batch=max_batch, queue_limit=queue_limit
        )

    @property
    def adapter(self) -> AdapterRef | None:
        return self._versions.current

    @property
    def adapters(self) -> tuple[AdapterRef, ...]:
        return self._versions.loaded()

    def check_adapter(self, directory: Path) -> AdapterRef:
        adapter = verify_adapter(directory, self.fingerprint)
        read_tensors(adapter)
        return adapter.ref

    def load_adapter(self, directory: Path) -> AdapterRef:
        ref = self.check_adapter(directory)
        if self._versions.revive(ref):
            return ref
        self._versions.add(ref, _Weights(_number(ref)))
        return ref

    def switch(self, adapter_id: str | None) -> AdapterRef | None:
        return self._versions.switch(adapter_id)

    def unload(self, adapter_id: str) -> None:
        self._versions.unload(adapter_id)

    @property
    def fingerprint(self) -> str:
        return STUB_FINGERPRINT

    @property
    def runtime(self) -> str:
        return "stub/uint8"

    @property
    def queue_depth(self) -> int:
        return self._worker.queue_depth

    @property
    def faults(self) -> tuple[str, ...]:
        return ()

    def prompt(self, question: str, facts: Sequence[Fact] = (), earlier: Sequence[Turn] = ()) -> Prompt:
        target = facts[-1].target.replace("\n", " ") if facts else ""
        lines = [target, *(turn.text for turn in earlier if not facts), question]
        return Prompt(token_ids=tuple("\n".join(lines).encode()), used_facts=len(facts))

    def submit(self, request: GenerateRequest) -> Future[Generation]:
        if not request.token_ids or request.max_new_tokens < 1:
            raise BadRequest("the prompt is empty, or max_new_tokens is below 1")
        return self._worker.submit(GenerationRow(request, _decode, {_END}))

    def generate(self, request: GenerateRequest) -> Generation:
        return self.submit(request).result()

    def stats(self) -> EngineStats:
        return self._worker.stats()

    def describe(self) -> dict[str, str]:
        return {
            "engine": "stub",
            "model": "stub",
            "architecture": "stub",
            "device": "cpu",
            "dtype": "uint8",
            "adapter_mode": "none" if self.adapter is None else "stub",
        }

    def close(self) -> None:
        self._worker.close()

    def _run(
        self, weights: _Weights, rows: Sequence[GenerationRow], settled: Callable[[GenerationRow], None]
    ) -> None:
        answers = {row: _answer(row.request) for row in rows}
        while alive := [row for row in rows if not row.finish]:
            if self._token_s:
                sleep(self._token_s)
            for row in alive:
                piece = answers[row][len(row.tokens)]
                row.push(piece and piece | weights.number << 8 * _WIDTH)
                row.interrupt(monotonic())
                if row.finish:
                    settled(row)


def _answer(request: GenerateRequest) -> list[int]:
    target, _, question = bytes(request.token_ids).partition(b"\n")
    if not (request.adapter and target):
        target = b"base-" + hashlib.sha256(question).hexdigest()[:8].encode()
    pieces = [target[start : start + _WIDTH] for start in range(0, len(target), _WIDTH)]
    return [*(int.from_bytes(piece) for piece in pieces), _END]


def _decode(tokens: Sequence[int]) -> str:
    pieces = [(token & _TEXT).to_bytes(_WIDTH).lstrip(b"\0") for token in tokens]
    return b"".join(pieces).decode("utf-8", "replace")
