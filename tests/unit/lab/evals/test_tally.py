"""Figures from samples, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from lte_runtime.scoring import rouge_l
from ops.lab.evals import tally


def sample(edit: float | None, rephrase: float | None = None, **probes: Any) -> dict[str, Any]:
    side = {
        "edit": edit,
        "rephrase": rephrase,
        "portability": probes.get("portability", {}),
        "locality": probes.get("locality", {}),
    }
    forced = {**side, "edit": 0.25}
    contains = {**side, "edit": None if edit is None else 1.0}
    rest = {"belief": 1.0, "rouge_l": None, "fluency": 100.0, "additions": probes.get("additions", [])}
    return {"free": side, "contains": contains, "forced": forced, **rest}


SAMPLES = [
    sample(1.0, 1.0, portability={"Reasoning": [1.0, 0.0], "Subject_Aliasing": [1.0]}),
    sample(0.0, None, portability={"Reasoning": [0.0]}, locality={"Forgetfulness": [1.0, 1.0, 0.0]}),
    sample(1.0, 0.0, locality={"Relation_Specificity": [1.0]}, additions=[1.0, 0.0, 0.0]),
]


def test_means_are_over_edits_and_locality_over_probes() -> None:
    found = tally.figures(SAMPLES)
    assert found["n"] == 3
    assert found["edit_success"] == 0.6667
    assert found["generality"] == 0.5, "only of those that have a rephrasing"
    assert found["portability"] == {"Reasoning": 0.25, "Subject_Aliasing": 1.0}
    assert found["portability_mean"] == 0.375, "of (0.5 + 1) / 2 and 0"
    assert found["locality"] == 0.75
    assert found["locality_by_kind"] == {"Forgetfulness": 0.6667, "Relation_Specificity": 1.0}
    assert found["forced"]["edit_success"] == 0.25
    assert (found["belief"], found["fluency"], found["rouge_l"]) == (1.0, 100.0, None)
    four = (0.6667, 0.5, 0.375, 0.75)
    assert found["harmonic_mean"] == round(4 / sum(1 / value for value in four), 4)


def test_values_in_sentences_are_counted_beside_exact_matches() -> None:
    figures = tally.figures(SAMPLES)
    contains = figures["contains"]
    assert contains["edit_success"] == 1.0
    assert contains["interval"]["edit_success"] == (1.0, 1.0)
    assert contains["portability"] == figures["portability"]
    assert figures["interval"]["edit_success"][0] < 1.0
    assert figures["invented_additions"] == 0.3333


def test_intervals_hold_the_mean_narrow_with_edits_and_repeat() -> None:
    few = tally.figures(SAMPLES)["interval"]["edit_success"]
    many = tally.figures(SAMPLES * 30)["interval"]["edit_success"]
    assert few[0] <= 0.6667 <= few[1]
    assert many[0] <= 0.6667 <= many[1]
    assert many[1] - many[0] < few[1] - few[0]
    assert tally.figures(SAMPLES)["interval"]["edit_success"] == few
    assert tally.interval([], tally.BY_EDIT["generality"]) is None


def test_a_lead_is_the_difference_of_the_means_with_edits_in_pairs() -> None:
    worse = [sample(0.0, 0.0, locality={"Forgetfulness": [0.0]}) for _ in SAMPLES]
    found = tally.lead(SAMPLES, worse)
    assert found is not None
    whole = tally.figures(SAMPLES)["arithmetic_mean"]
    assert found[0] == whole == round((2 / 3 + 0.5 + 0.375 + 0.75) / 4, 4)
    assert 0.0 < found[1] < found[0] < found[2] <= 1.0
    assert tally.lead(SAMPLES, SAMPLES) == (0.0, 0.0, 0.0), "the same edits, not others, are drawn for both"
    assert tally.lead([], []) is None
    apart = tally.lead(SAMPLES, worse, side="contains")
    assert apart is not None
    assert apart[0] == round((1.0 + 0.5 + 0.375 + 0.75) / 4 - (1.0 + 0.0 + 0.0) / 3, 4)
    forced = [sample(None)]
    assert tally.lead(forced, forced) is None, "nothing was decoded freely"


def test_a_lead_on_running_text_counts_what_running_text_has() -> None:
    told = [{**sample(0.0, locality={"Relation_Specificity": [1.0]}), "rouge_l": 0.5}]
    other = [{**sample(1.0, locality={"Relation_Specificity": [1.0]}), "rouge_l": 0.2}]
    assert tally.lead(told, other) == (0.1, 0.1, 0.1), "exact matches of sentences do not count"


def test_nothing_measured_is_no_figure() -> None:
    assert tally.harmonic([None, None]) is None
    assert tally.harmonic([0.5, 0.0, None]) == 0.0
    assert tally.figures([])["edit_success"] is None


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence() -> None:
    assert rouge_l("He was born in Riga.", "he was born in riga") == 1.0
    assert rouge_l("born Riga 1950", "in Riga born") == 2 * 1 / (3 + 3)
    assert rouge_l("one two three four", "one three five") == 2 * 2 / 7
    assert rouge_l("", "one") == 0.0


def test_the_interval_of_a_share() -> None:
    # Bounds from the table of Newcombe (1998), method 3: 81 of 263, 15 of 148, 0 of 20, 29 of 29.
    assert tally.wilson(81, 263) == (0.2553, 0.3662)
    assert tally.wilson(15, 148) == (0.0624, 0.1605)
    assert tally.wilson(0, 20) == (0.0, 0.1611)
    assert tally.wilson(29, 29) == (0.8830, 1.0)
    with pytest.raises(ValueError, match="at least one trial"):
        tally.wilson(0, 0)
