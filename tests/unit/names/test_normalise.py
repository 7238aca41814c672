"""One name has one key form, whatever its code points; the look-up form is one without accents."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lte_runtime.names.normalise import key_form, lookup_form

FORMS: tuple[Callable[[str], str], ...] = (key_form, lookup_form)
# Texts of characters that some rule is about are rare among all texts: they are drawn on purpose too.
RULED = st.text(
    st.sampled_from(
        "aIiİıßẞſSsΣσςΌό\u0345\u0307\u0300\u0301\u0323\u0327\u034f\u00ad\u200b\u200c\u200d\u2060\ufeff\ufe0f"
        "'’ʼ´′-‑–—−\u00a0\u2009\u3000 \t\nеёЙ\u0306か\u3099가\u1100\u1161\u3164אָ\u05b8ּ\u0640أَ\u064eﬁＡ™®①Ⓐ½"
    ),
    max_size=12,
)
TEXTS = st.text(max_size=20) | RULED


@pytest.mark.parametrize("form", FORMS)
@given(text=TEXTS)
def test_folding_twice_is_folding_once(form: Callable[[str], str], text: str) -> None:
    assert form(form(text)) == form(text)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("composition", ["NFC", "NFD"])
@given(text=TEXTS)
def test_canonically_equivalent_texts_have_one_form(
    form: Callable[[str], str], composition: str, text: str
) -> None:
    assert form(unicodedata.normalize(composition, text)) == form(text)


@pytest.mark.parametrize("form", FORMS)
def test_every_character_has_one_form_in_any_case(form: Callable[[str], str]) -> None:
    characters = [
        character
        for character in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(character) not in ("Cn", "Co", "Cs")  # unassigned, private, surrogates
    ]
    folded = [form(character) for character in characters]
    assert [form(once) for once in folded] == folded
    assert [form(character.upper()) for character in characters] == folded


@given(text=TEXTS)
def test_one_key_form_is_one_lookup_form(text: str) -> None:
    assert lookup_form(key_form(text)) == lookup_form(text)


@given(text=TEXTS)
def test_a_key_form_holds_no_blanks_but_single_ones(text: str) -> None:
    assert key_form(text).split(" ") == (key_form(text).split() or [""])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("O'Hanlon", "O’HANLON"),
        ("O'Hanlon", "OʼHanlon"),
        ("Andrea's", "Andrea´s"),
        ("Hawai'i", "Hawaiʻi"),
        ("Saint-Aubin", "Saint‑Aubin"),
        ("1990-1995", "1990–1995"),
        ("-5 °C", "−5 °C"),
        ("Großmann Gießerei", "GROSSMANN GIESSEREI"),
        ("Großmann", "GROẞMANN"),
        ("Işıklı Mobilya", "IŞIKLI MOBİLYA"),
        ("istanbul", "İSTANBUL"),
        ("Όμιλος Αιγαίου Πλους", "ΌΜΙΛΟΣ ΑΙΓΑΊΟΥ ΠΛΟΥΣ"),
        ("Московский завод", "МОСКОВСКИЙ ЗАВОД"),
        ("Ёлка", "ЁЛКА"),
        ("Anna\u200b\u00a0Berg", "anna berg"),
        ("می\u200cخواهم", "میخواهم"),
        ("❤\ufe0f", "❤"),
        ("한국", "\u1112\u1161\u11ab\u1100\u116e\u11a8"),
    ],
)
def test_spellings_of_one_name_are_one_key(first: str, second: str) -> None:
    assert key_form(first) == key_form(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("São Paulo", "Sao Paulo"),
        ("Łódź", "LODZ"),
        ("Jordbærøy", "jordbaeroy"),
        ("Ёлка", "Елка"),
        ("مُحَمَّد", "محمد"),
        ("أحمد", "احمد"),
        ("محـــمد", "محمد"),
        ("שָׁלוֹם", "שלום"),
        ("ﬁnance", "finance"),
        ("Ａｃｍｅ™", "Acme"),
        ("m²", "m2"),
    ],
)
def test_what_is_typed_without_accents_is_the_weaker_match(first: str, second: str) -> None:
    assert lookup_form(first) == lookup_form(second)
    assert (key_form(first) == key_form(second)) is (first == "ﬁnance")  # case folding takes ligatures apart


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("カ", "ガ"),
        ("हिन्दी", "हन्दी"),
        ("มา", "ม้า"),
        ("Bar", "Baz"),
        ("SKU-4711", "SKU-4712"),
        ("東京", "京都"),
    ],
)
def test_what_another_letter_says_is_another_name(first: str, second: str) -> None:
    assert lookup_form(first) != lookup_form(second)
