"""Names in questions: each kind is found where it is meant, and no code is taken for its neighbour."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lte_runtime.names.index import NameHit, NameIndex
from lte_runtime.names.mention import How, Mention
from lte_runtime.names.parts import MOST_SHARING
from lte_runtime.names.tokens import folded_name

SEED = 20231
NAMES = {
    1: ["SKU-4711"],
    2: ["v2.3.1"],
    3: ["v2.3"],
    4: ["C++"],
    5: ["C"],
    6: ["New York"],
    7: ["York"],
    8: ["São Paulo"],
    9: ["OpenAI"],
    10: ["United States of America", "United States", "US"],
    11: ["東京"],
    12: ["Anna Berg"],
    13: ["हिन्दी"],
    14: ["AT&T"],
    15: ["!!!"],
    16: ["Type B"],
    17: ["Straße des 17. Juni"],
    18: ["O'Brien's"],
    19: ["C#"],
    20: ["Node.js"],
    21: ["Rock'n'Roll GmbH & Co. KG"],
    22: ["ﬁnance ﬂoor"],
    23: ["İstanbul"],
    24: ["Кремль"],
    25: ["192.168.0.1"],
    26: ["Ａｃｍｅ"],
    27: ["Mercury"],
    28: ["Mercury"],
}


@pytest.fixture(scope="module")
def index() -> NameIndex:
    name_index = NameIndex()
    for key_id, names in NAMES.items():
        name_index.add(key_id, "default", names)
    return name_index


def exact_ids(index: NameIndex, question: str) -> set[int]:
    return {hit.key_id for hit in index.find(question, "default", 20) if hit.mention.how is How.EXACT}


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What does SKU-4711 cost?", {1}),
        ("what does sku 4711 cost", {1}),
        ("price(SKU_4711)", {1}),
        ("What does SKU-4712 cost?", set()),
        ("What does SKU-47111 cost?", set()),
        ("What does SKU-4711-B cost?", set()),
        ("What does XSKU-4711 cost?", set()),
        ("Is v2.3.1 out?", {2}),
        ("Is v2.3 out.", {3}),
        ("Is v2.3.10 out?", set()),
        ("Is v2.3.2 out?", set()),
        ("Is v2.3.1.4 out?", set()),
        ("Who made C++?", {4}),
        ("Who made C?", {5}),
        ("Who made C#?", {19}),
        ("Who is the mayor of New York?", {6}),
        ("Who is the archbishop of York?", {7}),
        ("From York to New York", {6, 7}),
        ("the SAO PAULO office", set()),
        ("the SÃO PAULO office", {8}),
        ("the Sa\u0303o Paulo office", {8}),
        ("openai's head", {9}),
        ("Who leads the US?", {10}),
        ("Tell us who leads it", set()),
        ("who leads the us", {10}),
        ("the united states of america", {10}),
        ("東京の人口は？", {11}),
        ("京都の人口は？", set()),
        ("हिन्दी भाषा", {13}),
        ("What is AT&T worth?", {14}),
        ("Who sings in !!!", set()),
        ("!!!", {15}),
        ("parts of Type B", {16}),
        ("parts of Type D", set()),
        ("STRASSE DES 17. JUNI", {17}),
        ("where is o'brien’s?", {18}),
        ("What is Node.js?", {20}),
        ("What is Node?", set()),
        ("Who runs rock'n'roll gmbh & co. kg?", {21}),
        ("finance floor", {22}),
        ("istanbul", {23}),
        ("İSTANBUL", {23}),
        ("кремль сегодня", {24}),
        ("ping 192.168.0.1", {25}),
        ("ping 192.168.0.10", set()),
        ("acme", set()),
        ("Ａcme", set()),
        ("Ａｃｍｅ", {26}),
        ("Boston-based Anna Berg", {12}),
        ("(Anna\u200b Berg)", {12}),
        ("Anna-Berg", {12}),
        ("How hot is Mercury?", {27, 28}),
        ("", set()),
        ("   ?", set()),
    ],
)
def test_exact_mentions(index: NameIndex, question: str, expected: set[int]) -> None:
    assert exact_ids(index, question) == expected


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("the Sao Paulo office", 8),
        ("the boss of Open AI", 9),
        ("the boss of OpenIA", 9),
        ("the boss of Opne AI", 9),
        ("the job of Ana Berg", 12),
        ("the job of Anna Bergg", 12),
        ("the Untied States", 10),
        ("Mercuri is hot", 27),
        ("acme", 26),
    ],
)
def test_slips_are_forgiven(index: NameIndex, question: str, expected: int) -> None:
    hits = [hit for hit in index.find(question, "default", 20) if hit.key_id == expected]
    assert len(hits) == 1
    assert hits[0].mention.how is not How.EXACT
    assert 0.6 < hits[0].mention.score < 1.0


@pytest.mark.parametrize(
    "question",
    [
        "SKU-4712",
        "SKU-4711-B",
        "v2.3.2",
        "v23.1",
        "Type D",
        "TypeD",
        "Type BB",
        "Type",
        "What is it?",
        "anna",
        "Anna Lind",
    ],
)
def test_neighbours_are_no_slips(index: NameIndex, question: str) -> None:
    assert index.find(question, "default", 20) == []


def find(names: dict[int, list[str]], question: str) -> dict[int, Mention]:
    """Where a question mentions the names, by key."""
    index = NameIndex()
    for key_id, of_key in names.items():
        index.add(key_id, "default", of_key)
    return {hit.key_id: hit.mention for hit in index.find(question, "default", 20)}


@pytest.mark.parametrize(
    ("names", "question", "expected"),
    [
        (["東京"], "東京の人口は？", "東京"),
        (["东方港务局"], "谁是东方港务局的局长？", "东方港务局"),
        (["北海食堂"], "「北海食堂」は何時に開きますか", "北海食堂"),
        (["トヨタ"], "トヨタの社長は誰ですか", "トヨタ"),
        (["カメラ"], "ビデオカメラの値段は", None),
        (["กรุงเทพ"], "นายกเทศมนตรีของกรุงเทพคือใคร", "กรุงเทพ"),
        (["โรงพยาบาลศิริราชสัมพันธ์"], "โรงพยาบาลศิริราชสัมพันธ์อยู่ที่ไหน", "โรงพยาบาลศิริราชสัมพันธ์"),
        (["京"], "東京の人口は？", None),
        (["ABC株式会社"], "ABC株式会社の本社は", "ABC株式会社"),
        (["Main warehouse"], "where is the main warehouse?", "main warehouse"),
        (["the Bellamont teapot"], "What does one Bellamont teapot cost?", "Bellamont teapot"),
        (["Ana"], "What does a banana cost?", None),
        (["AV"], "Who owns AVX?", None),
        (["Aubin"], "When does Saint-Aubin Clinic open?", None),
        (["Brien"], "Where is O'Brien's?", None),
        (["Brien"], "Où est le directeur d'Brien ?", "Brien"),
        (["P4"], "Who owns HP4?", None),
        (["Service Bulletin SB-12 Rev A"], "When does SB-12 Rev A apply?", "SB-12 Rev A"),
        (["Service Bulletin SB-12 Rev A"], "When does bulletin SB12 rev A apply?", "SB12 rev A"),
        (["Service Bulletin SB-12 Rev A"], "When does SB-12 Rev B apply?", None),
        (["Service Bulletin SB-12 Rev A"], "When does SB-12 apply?", None),
        (["Service Bulletin SB-12 Rev A"], "What does Technical Note SB-12 Rev A say?", None),
        (["Service Bulletin SB-12", "SB-12 bulletin"], "When does SB-12 apply?", "SB-12"),
        (["Team 👩\u200d🔬 Nova"], "Where does Team Nova meet?", "Team Nova"),
        (["Team 👩\u200d🔬 Nova"], "Where does Team 👩\u200d🔬 Nova meet?", "Team 👩\u200d🔬 Nova"),
        (["🦊🐙"], "What is 🦊🐙?", "🦊🐙"),
        (["🦊"], "What is 🐙?", None),
        (["Budget 2024"], "What happened in 2024?", None),
    ],
)
def test_a_name_is_found_by_its_own_words(names: list[str], question: str, expected: str | None) -> None:
    mention = find({1: names}, question).get(1)
    assert (mention and question[mention.start : mention.end]) == expected


def test_a_name_within_a_longer_one_is_not_mentioned() -> None:
    assert find({1: ["京都"], 2: ["東京都"]}, "東京都の人口は？").keys() == {2}
    assert find({1: ["Petrel"], 2: ["Petrel CRM"]}, "Who owns Petrel CRM?").keys() == {2}
    mention = find({1: ["Acme"]}, "Who leads Acme Labs?")[1]
    assert mention.inside, "no longer name is stored, but one is written"
    assert not find({1: ["Acme"]}, "Who leads Acme these days?")[1].inside


def test_a_code_that_two_subjects_end_with_means_none_of_them() -> None:
    names = {1: ["Service Bulletin SB-12 Rev A"], 2: ["Technical Note SB-12 Rev A"]}
    assert find(names, "When does SB-12 Rev A apply?") == {}
    assert find(names, "When does service bulletin SB-12 Rev A apply?").keys() == {1}
    del names[2]
    assert find(names, "When does SB-12 Rev A apply?").keys() == {1}


def test_a_code_of_a_subject_with_several_keys_means_that_subject() -> None:
    names = {1: ["Service Bulletin SB-12"], 2: ["Service Bulletin SB-12", "Bulletin SB-12"]}
    mentions = find(names, "When does SB-12 apply?")
    assert mentions.keys() == {1, 2}
    assert not any(mention.ambiguous for mention in mentions.values())


def test_a_code_is_found_beside_a_longer_name_with_it() -> None:
    names = {1: ["Service Bulletin SB-12"]}
    question = "Does Technical Note SB-12 say what SB-12 says?"
    mention = find(names, question)[1]
    assert mention.start == question.rindex("SB-12")


def test_a_first_name_alone_is_ambiguous() -> None:
    names = {1: ["Anna Berg"], 2: ["Anna Lind"], 3: ["Type B"]}
    mentions = find(names, "Where does Anna work?")
    assert {(key_id, m.how, m.ambiguous) for key_id, m in mentions.items()} == {
        (1, How.PART, True),
        (2, How.PART, True),
    }
    assert find(names, "Where does Anna Karlsson work?") == {}
    assert find(names, "Which Type is it?") == {}
    mentions = find(names, "Where does Anna Berg work, and is Anna Lind there?")
    assert {m.how for m in mentions.values()} == {How.EXACT}


def test_a_word_that_many_names_begin_with_is_none_of_them() -> None:
    names = {number: [f"Harbour {chr(97 + number).upper()}quay"] for number in range(MOST_SHARING + 1)}
    assert find(names, "Where is the Harbour?") == {}
    del names[0]
    assert len(find(names, "Where is the Harbour?")) == MOST_SHARING


def test_accents_are_a_weaker_match() -> None:
    names = {1: ["Müller"], 2: ["Mùller"], 3: ["Muller"]}
    assert {key_id: m.how for key_id, m in find(names, "Who is Müller?").items()} == {1: How.EXACT}
    del names[3]
    mentions = find(names, "Who is Muller?")
    assert {key_id: m.how for key_id, m in mentions.items()} == {1: How.PLAIN, 2: How.PLAIN}
    assert len({(m.start, m.end, m.score) for m in mentions.values()}) == 1


def test_parts_of_a_name_leave_with_it() -> None:
    index = NameIndex()
    index.add(1, "default", ["Service Bulletin SB-12"])
    index.add(2, "default", ["Technical Note SB-12"])
    assert index.find("When does SB-12 apply?", "default", 5) == []
    index.remove(2)
    assert [hit.key_id for hit in index.find("When does SB-12 apply?", "default", 5)] == [1]
    index.remove(1)
    assert index.find("When does SB-12 apply?", "default", 5) == []


def test_digits_always_agree() -> None:
    """Among codes that differ in one digit, none is ever found for another."""
    index, rng = NameIndex(), random.Random(SEED)
    codes = [f"{rng.choice(['SKU', 'Part', 'Model Orion'])}-{number}" for number in range(4000, 4400)]
    for key_id, code in enumerate(codes[::2]):
        index.add(key_id, "default", [code])
    for place, code in enumerate(codes):
        key_ids = {hit.key_id for hit in index.find(f"What is the price of {code} today?", "default", 50)}
        assert key_ids == ({place // 2} if place % 2 == 0 else set()), code


def test_longer_names_come_first_and_limit_holds() -> None:
    index = NameIndex()
    for key_id in range(30):
        index.add(key_id, "default", ["Harbour"])
    index.add(99, "default", ["Red Tower"])
    hits = index.find("the Red Tower at the Harbour", "default", 5)
    assert [hit.key_id for hit in hits] == [99, 0, 1, 2, 3]
    assert hits[0] == NameHit(99, Mention("red tower", 4, 13, 1.0, How.EXACT))


def test_one_hit_for_a_key_with_several_names() -> None:
    index = NameIndex()
    index.add(1, "default", ["United States", "USA", "usa", "  ", ""])
    assert len(index.find("Is the USA the United States?", "default", 9)) == 1


def test_ids_of_is_exact_on_the_folded_name(index: NameIndex) -> None:
    assert index.ids_of("mercury", "default") == [27, 28]
    assert index.ids_of("NEW  york", "default") == [6]
    assert index.ids_of("US", "default") == [10]
    assert index.ids_of("new yorc", "default") == []
    assert index.ids_of("mercury", "elsewhere") == []


def test_namespaces_are_apart() -> None:
    index = NameIndex()
    index.add(1, "a", ["Corvane"])
    index.add(2, "b", ["Corvane"])
    assert [hit.key_id for hit in index.find("Corvane", "a", 9)] == [1]
    assert index.ids_of("Corvane", "b") == [2]
    assert index.find("Corvane", "c", 9) == []


def test_adding_again_replaces_the_names() -> None:
    index = NameIndex()
    index.add(1, "a", ["Corvane", "Old Corvane"])
    index.add(1, "b", ["Sael Harbour"])
    assert index.ids_of("corvane", "a") == []
    assert index.ids_of("sael harbour", "b") == [1]
    assert len(index) == 1
    index.remove(1)
    index.remove(1)
    assert len(index) == 0
    assert index.find("Sael Harbour and Sael Habrour", "b", 9) == []


def test_removal_keeps_the_others_through_a_sweep() -> None:
    index = NameIndex()
    for key_id in range(3000):
        index.add(key_id, "default", [f"Tower {key_id}", "Landmark", f"Quarrystone{chr(97 + key_id % 26)}"])
    for key_id in range(2990):
        index.remove(key_id)
    assert index.ids_of("landmark", "default") == list(range(2990, 3000))
    assert [hit.key_id for hit in index.find("Tower 2995", "default", 1)] == [2995]
    assert {hit.key_id for hit in index.find("Landmrak", "default", 99)} == set(range(2990, 3000))


WORD = st.text(string.ascii_letters + string.digits + "éüßñ日本", min_size=1, max_size=8)
NAME = st.lists(WORD, min_size=1, max_size=4).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(name=NAME, before=NAME, after=NAME)
def test_a_name_is_found_wherever_it_stands(name: str, before: str, after: str) -> None:
    index = NameIndex()
    index.add(1, "default", [name])
    question = f'{before} "{name}", {after}?'
    if len(name) <= 4 and name.isupper():
        question = question.upper()
    hits = index.find(question, "default", 5)
    assert [(hit.key_id, hit.mention.how) for hit in hits] == [(1, How.EXACT)]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_taken(text: str) -> None:
    """Any question and any name is taken without an error."""
    assert folded_name(folded_name(text)) == folded_name(text)
    index = NameIndex()
    index.add(1, "default", [text])
    index.find(text, "default", 3)
    assert index.ids_of(text, "default") == ([1] if folded_name(text) else [])
    index.remove(1)
    assert index.find(text, "default", 3) == []
