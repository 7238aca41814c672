"""The product's own arms behind the protocol of the baselines, on the same weights and in the same dtype.

`ours` is the whole way of the product: edit memory, retrieval, scope gate, chain, prompt, aligned adapter.
`ours-guarded` puts misquoted values right besides, as serving does (`answer.fidelity`). `no-adapter` is
`ours` with the base model as the reader. `lte-reference` serves as the method's reference
code does: the three nearest facts before every question, no gate, always the adapter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lte_runtime.answer import prompt
from lte_runtime.answer.answerer import Answerer, AnswererSettings
from lte_runtime.answer.engine import lora
from lte_runtime.answer.engine.files import verify_adapter
from lte_runtime.answer.engine.protocol import EngineStats
from lte_runtime.answer.prompt import Prompt
from lte_runtime.answer.scope.gate import GateCalibration
from lte_runtime.answer.turns import build_conversation
from lte_runtime.errors import BadRequest, Refused
from lte_runtime.facts.keys import statement_of
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.types import (
    AdapterRef,
    Encoder,
    Fact,
    GenerateRequest,
    Generation,
    Question,
    Turn,
    Vectors,
)
from ops.lab.baselines import base as reading
from ops.lab.baselines import registry
from ops.lab.baselines.base import BaselineModel, Sample
from ops.lab.baselines.protocol import Editor, EditRequest, Forced
from ops.lab.baselines.registry import Supplies
from ops.lab.scratch import apply_events, memory_of

OURS = ("ours", "ours-guarded", "no-adapter", "lte-reference")
ALL = (*OURS, *registry.METHODS)
REFERENCE_FACTS = 3


@dataclass(frozen=True, slots=True)
class Kit:
    """What every arm is made from. `adapted` is the base with the adapter that `adapter` names, if any."""

    supplies: Supplies
    calibration: GateCalibration
    adapted: BaselineModel | None = None
    adapter: str = ""


def adapted(base: BaselineModel, adapter: Path) -> BaselineModel:
    """The base with an adapter merged in float32, beside it; tensors that it leaves alone are shared."""
    verified = verify_adapter(adapter, base.fingerprint)
    pairs = lora.read_pairs(verified, base.model)
    return replace(
        base, model=lora.merged_copy(base.model, lora.weights_of(base.model), pairs, verified.scale)
    )


@contextmanager
def arm(name: str, kit: Kit, params: object = None) -> Iterator[Editor]:
    """The arm called `name`, one of `ALL`; raises `BadRequest` for others, `Refused` without an adapter."""
    if name not in OURS:
        yield registry.editor(name, kit.supplies, params)
        return
    reader = kit.supplies.base if name == "no-adapter" else kit.adapted
    if reader is None:
        raise Refused(f"{name} needs an aligned adapter, and none is configured")
    if name == "lte-reference":
        yield NearestFactsEditor(reader, kit.supplies.base, kit.supplies.encoder)
        return
    base, encoder, guarded = kit.supplies.base, kit.supplies.encoder, name == "ours-guarded"
    gated = Gated(base, reader, encoder, kit.calibration, guarded=guarded)
    try:
        yield gated
    finally:
        gated.close()


class Planner:
    """An `Engine` without a model: it keeps each request, so that many can be answered together, and says
    what it is given to say."""

    def __init__(self, base: BaselineModel, says: str = "") -> None:
        self._base, self._says = base, says
        self.last: GenerateRequest | None = None

    adapter: AdapterRef | None = None
    queue_depth = 0
    runtime = "transformers/float32"

    @property
    def fingerprint(self) -> str:
        return self._base.fingerprint

    def prompt(self, question: str, facts: Sequence[Fact] = (), earlier: Sequence[Turn] = ()) -> Prompt:
        if earlier and not facts:
            return build_conversation(self._base.tokenizer, question, earlier, max_tokens=room(self._base))
        statements = [fact.statement for fact in facts]
        return prompt.build(self._base.tokenizer, question, statements, max_tokens=room(self._base))

    def submit(self, request: GenerateRequest) -> Future[Generation]:
        self.last = request
        done: Future[Generation] = Future()
        done.set_result(Generation(self._says, (), None, "stop", 0.0, 0.0))
        return done

    def generate(self, request: GenerateRequest) -> Generation:
        return self.submit(request).result()

    def stats(self) -> EngineStats:
        return EngineStats()

    def describe(self) -> dict[str, str]:
        return {"model": "planner"}

    def close(self) -> None:
        """Nothing runs."""


def room(base: BaselineModel) -> int:
    """Tokens that a prompt may have."""
    return base.context - min(reading.ANSWER_ROOM, base.context // 4)


class Gated:
    """`Editor` over the edit memory and the real answerer; `reader` answers what the gate lets in.

    With `guarded` its free answers pass the guard on misquoted values; teacher forcing has nothing to guard.
    """

    def __init__(
        self,
        base: BaselineModel,
        reader: BaselineModel,
        encoder: Encoder,
        calibration: GateCalibration,
        *,
        guarded: bool = False,
    ) -> None:
        self._base, self._reader, self._guarded = base, reader, guarded
        self._encoder, self._calibration = encoder, calibration
        self._stack = ExitStack()
        self._memory: EditMemory | None = None
        self._count = 0

    def edit(self, requests: Sequence[EditRequest]) -> None:
        events = [event(request, self._count + number) for number, request in enumerate(requests)]
        self._count += len(events)
        if events:
            apply_events(self._open_memory(), events)

    def answer(self, prompts: Sequence[str], *, max_new_tokens: int = 32) -> list[str]:
        answers = [""] * len(prompts)
        for base, rows in self._sides(prompts):
            texts = reading.answers(base, [ids for _, ids in rows], max_new_tokens)
            for (at, _), text in zip(rows, texts, strict=True):
                answers[at] = text.strip()
        return list(map(self._served, prompts, answers)) if self._guarded else answers

    def _served(self, text: str, answer: str) -> str:
        """What the service makes of the reader's answer."""
        return self._answerer(Planner(self._base, answer)).answer(Question(text)).text

    def forced(self, pairs: Sequence[tuple[str, str]]) -> list[Forced]:
        results: dict[int, Forced] = {}
        for base, rows in self._sides([question for question, _ in pairs]):
            samples = [Sample(ids, reading.target_ids(base, pairs[at][1])) for at, ids in rows]
            results |= zip([at for at, _ in rows], reading.forced(base, samples), strict=True)
        return [results[at] for at in range(len(pairs))]

    def undo(self) -> None:
        self._stack.close()
        self._memory = None

    close = undo

    def _open_memory(self) -> EditMemory:
        if self._memory is None:
            self._memory = self._stack.enter_context(memory_of([], self._encoder))
        return self._memory

    def _answerer(self, planner: Planner) -> Answerer:
        settings = AnswererSettings(fidelity=self._guarded)
        return Answerer(self._open_memory(), self._encoder, self._calibration, planner, settings)

    def _sides(self, prompts: Sequence[str]) -> list[tuple[BaselineModel, list[tuple[int, tuple[int, ...]]]]]:
        """What each of the two models is to read: places among `prompts`, and ids."""
        planner = Planner(self._base)
        answerer = self._answerer(planner)
        rows: dict[bool, list[tuple[int, tuple[int, ...]]]] = {False: [], True: []}
        for at, text in enumerate(prompts):
            answerer.answer(Question(text, max_new_tokens=1))
            assert planner.last is not None
            rows[planner.last.adapter].append((at, planner.last.token_ids))
        sides = [(self._base, rows[False]), (self._reader, rows[True])]
        return [(base, part) for base, part in sides if part]


def event(request: EditRequest, number: int) -> dict[str, str]:
    """An edit as the event that a publisher would send: prompt form, its subject as a name to be found by."""
    named = {"subject": request.subject} if request.subject else {}
    return {
        "op": "assert",
        "id": f"edit-{number}",
        "prompt": request.prompt,
        "target": request.target,
        **named,
    }


class NearestFactsEditor:
    """`Editor` that puts the nearest facts before every question. A later edit of a prompt replaces it."""

    def __init__(self, reader: BaselineModel, base: BaselineModel, encoder: Encoder) -> None:
        self._reader, self._base, self._encoder = reader, base, encoder
        self._facts: dict[str, str] = {}
        self._vectors: dict[str, Vectors] = {}

    def edit(self, requests: Sequence[EditRequest]) -> None:
        statements = [
            statement_of(request.subject, "", request.prompt, request.target) for request in requests
        ]
        for request, fact, vector in zip(requests, statements, self._encoder.encode(statements), strict=True):
            self._facts[request.prompt], self._vectors[request.prompt] = fact, vector

    def answer(self, prompts: Sequence[str], *, max_new_tokens: int = 32) -> list[str]:
        return reading.answers(self._side, self._prompt_ids(prompts), max_new_tokens)

    def forced(self, pairs: Sequence[tuple[str, str]]) -> list[Forced]:
        prompt_ids = self._prompt_ids([text for text, _ in pairs])
        rows = [
            Sample(ids, reading.target_ids(self._side, target))
            for ids, (_, target) in zip(prompt_ids, pairs, strict=True)
        ]
        return reading.forced(self._side, rows)

    def undo(self) -> None:
        self._facts.clear()
        self._vectors.clear()

    @property
    def _side(self) -> BaselineModel:
        """Before the first edit there is nothing to say otherwise: the base."""
        return self._reader if self._facts else self._base

    def _prompt_ids(self, prompts: Sequence[str]) -> list[tuple[int, ...]]:
        if not self._facts or not prompts:
            return [reading.question(self._base, text) for text in prompts]
        vectors = np.stack(list(self._vectors.values()))
        facts = list(self._facts.values())
        scores = self._encoder.encode(prompts, query=True) @ vectors.T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :REFERENCE_FACTS]
        return [
            prompt.build(
                self._base.tokenizer, text, [facts[at] for at in row], max_tokens=room(self._base)
            ).token_ids
            for text, row in zip(prompts, best, strict=True)
        ]


def check(names: Sequence[str]) -> None:
    """Raises `BadRequest` for a method that does not exist."""
    for name in names:
        if name not in ALL:
            raise BadRequest(f"there is no method {name}; there are {', '.join(ALL)}")
