"""The epoch of a swap by hand: the owner's, the last one seen while Kafka is away, refused elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from daemon.wiring import swap_epoch
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
    ("owned", "seen", "epoch"),
    [
        ((7,), 3, 7),
        ((7,), 9, 9),  # the topic was made anew: its offsets began again
        ((Retry("no broker"),), 3, 3),
        ((Refused("not yet"), Refused("not yet"), 7), 3, 7),
    ],
)
def test_the_epoch(owned: tuple[int | Exception, ...], seen: int, epoch: int) -> None:
    assert swap_epoch(raising(*owned), lambda: seen)() == epoch


def test_who_does_not_own_is_refused() -> None:
    with pytest.raises(Refused, match="another"):
        swap_epoch(raising(Refused("another daemon owns it")), lambda: 0, patience_s=0.0)()
