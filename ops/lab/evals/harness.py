"""The models behind EleutherAI's lm-evaluation-harness, with task files from this machine.

Contexts are asked as the product asks a question without facts, chat template included, so that base and
aligned adapter are read as they are served. Nothing is fetched: the hub is offline unless a task names files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from lte_runtime.answer import prompt
from ops.lab.baselines import base as reading
from ops.lab.baselines.base import BaselineModel
from ops.lab.evals.arms import Kit
from ops.lab.evals.general import surprise

TOKENS = 64
"""Of an answer, where a task does not say how many."""


class HarnessModel(LM):  # type: ignore[misc]  # the harness has no types
    """One of our models as the harness asks for it."""

    def __init__(self, base: BaselineModel) -> None:
        super().__init__()
        self._base = base

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Of each continuation behind its context: its log-probability, and whether greedy says it."""
        samples = [reading.sample(self._base, *instance.args, end=False) for instance in requests]
        return [(result.logprob, all(result.right)) for result in reading.forced(self._base, samples)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Of each running text, from its second token on."""
        rows = (prompt.untrusted(self._base.tokenizer, instance.args[0]) for instance in requests)
        return [-surprise(self._base, ids[: self._base.context]) for ids in rows]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The greedy answer to each context, cut before the first of the task's stop texts."""
        answers = []
        for instance in requests:
            context, options = instance.args
            ids = reading.question(self._base, context)
            (answer,) = reading.answers(self._base, [ids], int(options.get("max_gen_toks", TOKENS)))
            answers.append(_until(answer, options.get("until", ())))
        return answers


def _until(answer: str, stops: str | Sequence[str]) -> str:
    for stop in [stops] if isinstance(stops, str) else stops:
        answer = answer.split(stop)[0] if stop else answer
    return answer


def run(kit: Kit, tasks: Sequence[str], include: Path, *, limit: int | None = None) -> dict[str, Any]:
    """`{"methods": {"no-adapter" | "ours": {"sets": {task: {metric: value}}}}}`, tasks from `include`."""
    manager = TaskManager(include_path=str(include), include_defaults=False)
    readers = {"no-adapter": kit.supplies.base} | ({"ours": kit.adapted} if kit.adapted else {})
    methods = {}
    for name, reader in readers.items():
        results: Mapping[str, dict[str, Any]] = simple_evaluate(
            HarnessModel(reader), tasks=list(tasks), limit=limit, task_manager=manager, bootstrap_iters=0
        )["results"]
        methods[name] = {"sets": {task: _figures(metrics) for task, metrics in results.items()}}
    return {"methods": methods}


def _figures(metrics: dict[str, Any]) -> dict[str, float]:
    """The metrics of a task without the name of their filter."""
    return {
        key.partition(",")[0]: value
        for key, value in metrics.items()
        if isinstance(value, (int, float)) and "stderr" not in key
    }
