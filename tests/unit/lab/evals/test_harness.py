"""The harness asks our models by local task files, and counts what they are known to answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from real_parts import QWEN2

from lte_runtime.answer.scope.gate import lexical_calibration
from ops.lab.baselines import base as reading
from ops.lab.baselines.base import BaselineModel
from ops.lab.evals import harness
from ops.lab.evals.arms import Kit
from tests.unit.lab.baselines.conftest import supplies

TASKS = Path(__file__).parents[3] / "data" / "harness"


@pytest.fixture(scope="module")
def base() -> BaselineModel:
    return BaselineModel.load(QWEN2)


def request(kind: str, *args: object) -> Instance:
    return Instance(kind, {}, args, 0)


def test_two_local_tasks_run_on_a_real_model(
    base: BaselineModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    given = supplies(base, tmp_path / "cache")
    kit = Kit(given, lexical_calibration(given.encoder.fingerprint))
    found = harness.run(kit, ["capitals", "capital_choice"], TASKS)["methods"]
    assert list(found) == ["no-adapter"]
    assert found["no-adapter"]["sets"]["capitals"]["exact_match"] >= 0.75
    assert found["no-adapter"]["sets"]["capital_choice"]["acc"] >= 0.75


def test_likelihoods_are_those_of_teacher_forcing(base: BaselineModel) -> None:
    reader = harness.HarnessModel(base)
    right, wrong = reader.loglikelihood(
        [request("loglikelihood", "What is the capital of France?", city) for city in ("Paris", "Oslo")]
    )
    assert right[0] > wrong[0]
    assert (right[1], wrong[1]) == (True, False)
    whole, half = reader.loglikelihood_rolling(
        [request("loglikelihood_rolling", text) for text in ("The lamp stands there.", "The lamp")]
    )
    assert whole < half < 0


def test_answers_end_at_the_stop_texts_of_a_task(base: BaselineModel) -> None:
    asked = "What is the capital of France?"
    (said,) = reading.answers(base, [reading.question(base, asked)], 8)
    (cut,) = harness.HarnessModel(base).generate_until(
        [request("generate_until", asked, {"until": [said[2]], "max_gen_toks": 8})]
    )
    assert cut == said.split(said[2])[0]
