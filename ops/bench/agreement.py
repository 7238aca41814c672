"""Whether an engine answers as transformers does: the same prompts to both, with the same weights on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path

from daemon.parts import models
from daemon.settings import Settings
from lte_runtime.drift.general import GENERAL
from lte_runtime.scoring import same_answer
from lte_runtime.types import GenerateRequest, Generation
from ops.bench.answer import edited_prompts, new_answerer
from ops.bench.result import BenchResult, machine, percentile, today

NEW = 32
REFERENCE = {"engine": "transformers", "dtype": "float32"}
BAR = "edited answers equal >= 0.99"


def run(quick: bool, progress: Callable[[str], None], settings: Settings | None = None) -> BenchResult:
    """`ours`: share of edited answers that are equal after normalising. `base_equal`: the same for questions
    that no fact answers; `base_common`: the median share of tokens before the first one that differs."""
    count = 40 if quick else 400
    settings = settings or Settings()
    reference = settings.model_copy(update={"model": settings.model.model_copy(update=REFERENCE)})
    with tempfile.TemporaryDirectory() as name:
        progress(f"filling the memory with {count} facts")
        answerer, engine = new_answerer(Path(name), count, settings)
        requests = [
            GenerateRequest(prompt.token_ids, True, NEW, values=prompt.values)
            for prompt in edited_prompts(answerer, engine, count)
        ]
        edited = len(requests)
        for question, _names in GENERAL[: count // 4]:
            ids = engine.prompt(question).token_ids
            requests.append(GenerateRequest(ids, False, NEW, several_lines=True))
        progress(f"{len(requests)} prompts")
        ours = [engine.generate(request) for request in requests]
        engine.close()
    progress("the same by transformers")
    other = models.engine(reference)
    theirs = [other.generate(request) for request in requests]
    other.close()
    equal = [same_answer(a.text, b.text) for a, b in zip(ours, theirs, strict=True)]
    common = [_common(a, b) for a, b in zip(ours[edited:], theirs[edited:], strict=True)]
    return BenchResult(
        name="agreement",
        ours=_share(equal[:edited]),
        peer=None,
        ratio=None,
        unit="share of edited answers equal",
        n=len(requests),
        bar=BAR,
        machine=machine(),
        date=today(),
        extra={
            "engine": engine.runtime,
            "reference": other.runtime,
            "edited": edited,
            "base_equal": _share(equal[edited:]),
            "base_common": percentile(common, 0.5),
        },
    )


def _common(a: Generation, b: Generation) -> float:
    """The share of the longer answer's tokens that both begin with."""
    pairs = zip(a.token_ids, b.token_ids, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return same / max(len(a.token_ids), len(b.token_ids), 1)


def _share(values: Sequence[bool]) -> float:
    return sum(values) / max(len(values), 1)
