"""Names in prompts: found by the way in which they are written, in any language."""

from __future__ import annotations

import pytest

from lte_runtime.names.prompts import names_in


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("Which colour is the iPhone 17 sold in?", ("iPhone 17",)),
        ("Who leads eBay of Nordhavn?", ("eBay of Nordhavn",)),
        ("What does the macOS Tahoe installer need?", ("macOS Tahoe",)),
        ("The keeper of Skerry Point is", ("Skerry Point",)),
        ("Where is the SKU-4711 kept?", ("SKU-4711",)),
        ("SKU-4711 is kept in", ("SKU-4711",)),
        ("iPhone 17 is sold in", ("iPhone 17",)),
        ("Nordwind Cargo Group is led by", ("Cargo Group", "Nordwind Cargo Group")),
        ("Is it open? Who says so?", ()),
        ("Le siège de Élan Vital est à", ("Élan Vital",)),
        ("Wer leitet die Hochschule für Musik?", ("Hochschule für Musik",)),
        ("The father of Ezra ben Solomon Gracia is", ("Ezra ben Solomon Gracia",)),
        ("Директор Северного Порта —", ("Северного Порта", "Директор Северного Порта")),
        ("「北海食堂」の開店時間は", ("北海食堂",)),
        ("The author of “the quiet harbour” is", ("the quiet harbour",)),
        ("Does Acme, or Zephyr X2, win?", ("Acme", "Does Acme", "Zephyr X2")),
        ("who is it", ()),
        ("", ()),
    ],
)
def test_names_in_a_prompt_are_written_like_names(prompt: str, names: tuple[str, ...]) -> None:
    assert names_in(prompt) == names
