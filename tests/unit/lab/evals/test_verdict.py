"""One answer, scored twice, and what it says beyond the fact."""

from __future__ import annotations

import pytest

from ops.lab.evals.verdict import Verdict, judged

STATEMENT = "The founder of Velmora Works is Ida Moen."
CONTEXT = (STATEMENT, "Who set up Velmora Works?", "Velmora Works", "VW")


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("Ida Moen.", Verdict(exact=True, contains=True, adds=False)),
        ("The founder of VW is Ida Moen.", Verdict(exact=False, contains=True, adds=False)),
        ("Ida Moen set up Velmora Works", Verdict(exact=False, contains=True, adds=False)),
        ("Ida Moen, a chemist", Verdict(exact=False, contains=True, adds=True)),
        ("Ida Moen after Per Lund", Verdict(exact=False, contains=False, adds=True)),
        ("Per Lund", Verdict(exact=False, contains=False, adds=None)),
        ("", Verdict(exact=False, contains=False, adds=None)),
    ],
)
def test_an_answer_is_scored_twice_and_additions_are_words_of_neither_fact_nor_question(
    answer: str, verdict: Verdict
) -> None:
    assert judged(answer, ("Ida Moen",), others=("Per Lund",), context=CONTEXT) == verdict
