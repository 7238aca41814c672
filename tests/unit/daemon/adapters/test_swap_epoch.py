"""The epoch of a swap by hand: the owner's, the last one seen while Kafka is away, refused elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from daemon.adapters.ownership import swap_epoch
from lte_runtime.errors import Refused, Retry


def raising(*outcomes: int | Exception) -> Callable[[], int]:
    left = list(outcomes)

    def owned() -> int:
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return owned


@pytest.mark.parametrize(
    ("owned", "away", "seen", "epoch"),
    [
        ((7,), False, 3, 7),
        ((7,), True, 3, 7),
        ((7,), False, 9, 9),  # the topic was made anew: its offsets began again
        ((Retry("no broker"),), True, 3, 3),
        ((Retry("not connected yet"), Refused("not yet"), 7), False, 3, 7),
    ],
)
def test_the_epoch(owned: tuple[int | Exception, ...], away: bool, seen: int, epoch: int) -> None:
    assert swap_epoch(raising(*owned), lambda: seen, away=lambda: away)() == epoch


@pytest.mark.parametrize("away", [False, True])
def test_who_does_not_own_is_refused(away: bool) -> None:
    owned = raising(Refused("another daemon owns it"))
    with pytest.raises(Refused, match="another"):
        swap_epoch(owned, lambda: 0, away=lambda: away, patience_s=0.0)()


def test_a_topic_that_cannot_be_read_is_no_licence() -> None:
    with pytest.raises(Retry):
        swap_epoch(raising(Retry("slow")), lambda: 0, away=lambda: False, patience_s=0.0)()
