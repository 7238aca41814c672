"""Presets by name, and with other numbers."""

from __future__ import annotations

import pytest

from lte_runtime.align import presets
from lte_runtime.errors import BadRequest


def test_numbers_of_preset_settings_and_mixture_are_replaced() -> None:
    chosen = presets.adjusted(
        presets.preset("demo"), {"cases": "12", "rate": 0.5, "sure": "0.1", "warm_start": "false"}
    )
    assert (chosen.cases, chosen.settings.rate, chosen.mixture.sure) == (12, 0.5, 0.1)
    assert chosen.warm_start is False
    assert presets.preset("demo").cases != 12


@pytest.mark.parametrize("changes", [{"nothing": 1}, {"name": "x"}, {"cases": "many"}, {"bf16": 2}])
def test_what_no_preset_has_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        presets.adjusted(presets.preset("demo"), changes)


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadRequest, match="embedded"):
        presets.preset("none")
