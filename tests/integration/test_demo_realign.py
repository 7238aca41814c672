"""The demo's re-alignment on a whole daemon with stubs: what it shows, and when it is not as promised."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from daemon_house import House

from ops.demo.realign import realignment
from ops.demo.session import Session

pytestmark = pytest.mark.kafka
QUICK = {
    "LTE_REALIGN__AUTOMATIC": "true",
    "LTE_REALIGN__MIN_FACT_AGE_S": "0",
    "LTE_DRIFT__LOOK_S": "0.5",
}


def played(house: House) -> tuple[bool, str]:
    """Whether the step held, and all that it showed."""
    shown: list[str] = []
    session = Session.open(house.stack, shown.append, fast=False)
    try:
        session.client.retrieve("Is it there?", at_least=_marks(session))
        return realignment(session), "\n".join(shown)
    finally:
        session.close()


def _marks(session: Session) -> list[dict[str, object]]:
    found = session.publish(*session.events)
    return [{"topic_id": p.topic_id, "partition": p.partition, "offset": p.offset} for p in found]


def test_a_swap_under_questions_that_gains_nothing_is_not_as_promised(
    make_house: Callable[..., House],
) -> None:
    held, shown = played(make_house(**QUICK, LTE_REALIGN__PRESET="stub:slow").start())
    assert "reason unseen_relations" in shown
    assert "the gate's verdict: [bold]promote[/bold]" in shown
    assert "by align-000001), 0 failed" in shown
    assert "ships: 50 of 50 right before, 50 after" in shown, "the stub reads whatever it is told"
    assert "gain [bold]+0.000[/bold]" in shown
    assert not held


def test_a_run_that_promotes_nothing_says_why(make_house: Callable[..., House]) -> None:
    held, shown = played(make_house(**QUICK, LTE_REALIGN__PRESET="stub:half_judged").start())
    assert "rejected, because" in shown
    assert "were asked" in shown
    assert not held
