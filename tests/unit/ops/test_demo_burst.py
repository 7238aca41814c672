"""The burst of the demo: withheld families, made from its lists, asked about what no training has seen."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from lte_runtime.align.stock.relations import WITHHELD_FAMILIES, withheld
from lte_runtime.scoring import matches
from ops.demo import make_burst
from ops.demo.realign import better_by, burst, lower_bound

DEMO = Path(make_burst.__file__).parent


def test_the_file_is_what_its_lists_make() -> None:
    families, values = make_burst.read_pools((DEMO / "burst_pools.txt").read_text("utf-8"))
    lines = (DEMO / "burst.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == list(make_burst.events(families, values))


def test_all_is_withheld_and_fictitious() -> None:
    told = burst()
    assert {each.family for each in told} == set(WITHHELD_FAMILIES)
    assert all(withheld(each.event["relation"]) for each in told)
    assert all(each.event["source"]["uri"].startswith("urn:fiction:") for each in told)
    others = [json.loads(line) for line in (DEMO / "events.jsonl").read_text("utf-8").splitlines()]
    assert not {each.event["subject"] for each in told} & {each.get("subject") for each in others}


def test_what_is_asked_about_is_told_late_alone() -> None:
    told = burst()
    late, early = ([each for each in told if each.late is side] for side in (True, False))
    assert set(Counter(each.family for each in late).values()) == {50}
    assert not {each.event["subject"] for each in late} & {each.event["subject"] for each in early}
    # A question or a statement that holds no answer, or gives it away, would measure nothing.
    for each in told:
        assert each.event["target"] in each.event["statement"]
        assert each.event["subject"] in each.question
        assert not matches(each.question, [each.event["target"]])


def test_the_promise_holds_a_gain_that_is_large_and_sure() -> None:
    assert better_by([1] * 20 + [0] * 130)
    assert not better_by([1] * 14 + [0] * 136), "too small"
    assert not better_by([1] * 3 + [-1] * 2), "not sure"
    assert lower_bound([1] * 40 + [-1] * 40) < 0
