"""Training the relevance model: it learns, and what is served gives what was trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lte_runtime.answer.encoder.model_files import DEFAULT_NAMES, locate, read
from lte_runtime.answer.relevance import cross_encoder
from ops.lab.gate.pairs import Pair
from ops.lab.gate.shared_pairs import knowedit_pairs, pararel_pairs, without
from ops.lab.gate.train import Schedule, Tokens, above, auc, export, network, scores, start_state, train

PAIRS = [
    *(Pair(f"{asked} it?", f"The {noun} of it", asks=1.0) for asked, noun in (("Who built", "shipyard"),)),
    Pair("Who sank it?", "The shipyard of it"),
    Pair("Where was it built before?", "The shipyard of it", earlier=1.0),
    Pair("Where is the shipyard of it?", "The shipyard of it", beyond=1.0),
]


@pytest.mark.model
def test_it_learns_and_the_served_model_gives_the_same(tmp_path: Path) -> None:
    files, how = read(locate(DEFAULT_NAMES[0])), Schedule(epochs=6, batch=4, rate=1e-4, frozen=4, threads=1)
    model, tokens = network(files, how.frozen), Tokens(files)
    texts = [(pair.question, pair.view) for pair in PAIRS]
    labels = np.array([[pair.asks, pair.earlier, pair.beyond] for pair in PAIRS])
    epochs: list[int] = []
    before = scores(model, tokens, texts)
    train(model, tokens, [PAIRS * 4] * how.epochs, how, epochs.append)
    after = scores(model, tokens, texts)
    assert epochs == list(range(how.epochs))
    assert _loss(after, labels) < 0.7 * _loss(before, labels)
    named = export(model, files, tmp_path, how.frozen)
    served = cross_encoder.load(Path(named.model), named.model_sha256, named.model_base).odds(texts)
    assert np.abs(served - after).max() < 0.5, "bytes and bf16 move log-odds a little"
    further = network(files, how.frozen)
    further.load_state_dict(start_state(further, Path(named.model)))
    assert np.abs(scores(further, tokens, texts) - after).max() < 0.5, "it goes on from what ships"


def _loss(odds: np.ndarray, labels: np.ndarray) -> float:
    return float((np.logaddexp(0.0, odds) - labels * odds).mean())


def test_the_area_under_the_curve_and_the_share_above_a_quantile() -> None:
    low, high = np.arange(10, dtype=np.float32), np.arange(10, 20, dtype=np.float32)
    assert auc(high, low) == above(high, low) == 1.0
    assert auc(low, high) == 0.0
    assert auc(low, low) == pytest.approx(0.5, abs=0.06)


def test_pairs_of_knowedit_are_without_names_and_leave_the_half_for_judging(tmp_path: Path) -> None:
    def probe(text: str) -> dict[str, str]:
        return {"prompt": text, "ground_truth": "a"}

    records = [
        {
            "subject": f"Tarn {number}",
            "prompt": f"Who runs Tarn {number}?",
            "target_new": "Ida Krog",
            "rephrase_prompt": f"Who is the head of Tarn {number}?",
            "locality": {"Specificity": [probe(f"Where is Tarn {number}?")]},
            "portability": {"Reasoning": [probe(f"Who married the head of Tarn {number}?")]},
        }
        for number in range(20)
    ]
    for name in ("zsre", "wiki_recent", "wiki_counterfact"):
        (tmp_path / f"{name}.json").write_text(json.dumps(records if name == "zsre" else []), "utf-8")
    pairs = knowedit_pairs(tmp_path)
    assert 0 < len(pairs) < 4 * len(records)
    assert {pair.view for pair in pairs} == {"Who runs it?"}
    assert {(pair.question, pair.asks > 0, pair.beyond > 0) for pair in pairs} == {
        ("Who runs it?", True, False),
        ("Who is the head of it?", True, False),
        ("Where is it?", False, False),
        ("Who married the head of it?", False, True),
    }
    assert without("Who runs it?", "Tarn 1") is None


def test_patterns_of_one_relation_ask_for_the_same(tmp_path: Path) -> None:
    patterns = [
        ("P1", "[X] works for [Y]."),
        ("P1", "[X] is employed by [Y]"),
        ("P2", "[X] was born in [Y] ."),
        ("P2", "[X] is from [Y]"),
        ("P2", "[Y] saw [X]"),
    ]
    lines = (json.dumps({"relation": name, "pattern": text}) + "\n" for name, text in patterns)
    (tmp_path / "patterns.jsonl").write_text("".join(lines), "utf-8")
    pairs = pararel_pairs(tmp_path, seed=1, count=20)
    sides = ({"it works for", "it is employed by"}, {"it was born in", "it is from"})
    for pair in pairs:
        together = any({pair.question, pair.view} <= side for side in sides)
        assert together == bool(pair.asks), pair
