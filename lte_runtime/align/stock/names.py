"""Invented and real values of every kind that facts carry: people, places, codes, dates, prices."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

_TABLE = Path(__file__).parent / "tables" / "words.txt"


def _lists(path: Path) -> dict[str, list[str]]:
    """Lists of the table, `name: one;two;...`; a value that stands twice is drawn twice as often."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name: values.split(";") for name, _, values in (line.partition(": ") for line in lines)}


WORDS = _lists(_TABLE)
ONSETS = WORDS["onsets"]
VOWELS = WORDS["vowels"]
CODAS = WORDS["codas"]
ENDINGS = WORDS["endings"]
FIRST = WORDS["first"]
LAST = WORDS["last"]
CITIES = WORDS["cities"]
COUNTRIES = WORDS["countries"]
LANGUAGES = WORDS["languages"]
OCCUPATIONS = WORDS["occupations"]
THINGS = WORDS["things"]
FIELDS = WORDS["fields"]
MATERIALS = WORDS["materials"]
MONTHS = WORDS["months"]
STATUS = WORDS["status"]
GOODS = WORDS["goods"]
ORG_TAILS = WORDS["org_tails"]
PRODUCT_TAILS = WORDS["product_tails"]
ROLES = WORDS["roles"]
TLDS = WORDS["tlds"]
UNITS = WORDS["units"]
STREETS = WORDS["streets"]


def word(rng: random.Random, low: int = 1, high: int = 3) -> str:
    """An invented lower-case word of `low` to `high` syllables, sometimes with a known ending."""
    parts = [
        rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(rng.randint(low, high))
    ]
    if rng.random() < (0.5 if len(parts) == 1 else 0.2):
        parts.append(rng.choice(ENDINGS))
    return "".join(parts)


def name(rng: random.Random, low: int = 1, high: int = 3) -> str:
    """An invented capitalised name."""
    return word(rng, low, high).capitalize()


ACCENTED = {"a": "àáâãäåāăą", "c": "çćčĉ", "d": "ďđð", "e": "èéêëēęěė", "g": "ğģġ", "h": "ĥħ", "i": "ìíîïīįı"}
ACCENTED |= {"k": "ķ", "l": "łľĺļ", "n": "ñńňņ", "o": "òóôõöøőō", "r": "řŕ", "s": "śşšș", "t": "ťțţþ"}
ACCENTED |= {"u": "ùúûüůűūų", "y": "ýÿ", "z": "źżž"}


def accented(rng: random.Random, text: str) -> str:
    """Some letters exchanged for letters with marks, and now and then a foreign capital in front."""
    share = rng.choice((0.15, 0.3, 0.5))
    letters = [rng.choice(ACCENTED[c]) if c in ACCENTED and rng.random() < share else c for c in text]
    if text[0].isupper() and text[0].lower() in ACCENTED and rng.random() < 0.3:
        letters[0] = rng.choice(ACCENTED[text[0].lower()]).upper()
    return "".join(letters)


def digits(rng: random.Random) -> str:
    """Numbers in which digits stand more than once, as 10:00, 9,800, 4.35 or 0800 555 019 do."""
    few = [str(rng.randrange(10)) for _ in range(rng.randint(1, 3))] + ["0"]
    length = rng.randint(2, 9)
    return "".join(
        rng.choice(few) + (rng.choice(",.:- /") if rng.random() < 0.25 and place < length - 1 else "")
        for place in range(length)
    )


def first(rng: random.Random) -> str:
    return rng.choice(FIRST) if rng.random() < 0.75 else name(rng, 1, 2)


def last(rng: random.Random) -> str:
    return rng.choice(LAST) if rng.random() < 0.45 else name(rng, 1, 3)


def person(rng: random.Random) -> str:
    full_name = _person(rng)
    return accented(rng, full_name) if rng.random() < 0.12 else full_name


def _person(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.03:
        return f"{rng.choice(['Mr.', 'Ms.', 'Dr.', 'Prof.', 'Sir', 'Capt.'])} {first(rng)} {last(rng)}"
    if roll < 0.1:
        return f"{first(rng)} {last(rng)}-{last(rng)}"
    if roll < 0.17:
        return f"{first(rng)} {rng.choice('ABCDEFGHJKLMNPRSTVW')}. {last(rng)}"
    if roll < 0.22:
        return f"{first(rng)} {first(rng)} {last(rng)}"
    if roll < 0.25:
        return f"{first(rng)} {rng.choice(['van', 'de', 'von', 'al-', 'da', 'bin'])} {last(rng)}"
    return f"{first(rng)} {last(rng)}"


def place(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.35:
        return rng.choice(CITIES)
    if roll < 0.5:
        tail = rng.choice("Valley Bay Hills Falls County Island Lake District Springs Point".split())
        return f"{name(rng, 1, 2)} {tail}"
    if roll < 0.57:
        return (
            f"{rng.choice(['San', 'Saint', 'New', 'Upper', 'Port', 'Bad', 'El', 'North'])} {name(rng, 1, 2)}"
        )
    return name(rng)


def org(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.35:
        return f"{name(rng)} {rng.choice(ORG_TAILS)}"
    if roll < 0.5:
        return f"{rng.choice(THINGS).capitalize()} {rng.choice(THINGS).capitalize()} {rng.choice(ORG_TAILS)}"
    if roll < 0.6:
        return f"{last(rng)} & {last(rng)}"
    if roll < 0.7:
        return f"{rng.choice(['University', 'Museum', 'Bank', 'Port', 'Institute'])} of {place(rng)}"
    return name(rng)


def code(rng: random.Random) -> str:
    """A stock-keeping unit, model number, ticket or build id."""
    letters = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(rng.randint(1, 3)))
    number = rng.randint(1, 10 ** rng.randint(1, 4))
    form = rng.choice(
        [
            "{l}-{n}",
            "SKU {n}",
            "{l}{n}",
            "ticket {n}",
            "order {n}",
            "{l}-{n}-{m}",
            "INC-{n}",
            "model {l}{n}",
            "#{n}",
            "room {n}",
            "Flight {l}{n}",
            "line {n}",
            "part {l}-{n}",
            "{n}{l}",
            "case {n}/{m}",
        ]
    )
    return form.format(l=letters, n=number, m=rng.randint(1, 99))


def product(rng: random.Random) -> str:
    base = name(rng, 1, 2) if rng.random() < 0.6 else rng.choice(THINGS).capitalize()
    roll = rng.random()
    if roll < 0.3:
        return f"{base} {rng.choice(GOODS)}"
    if roll < 0.5:
        return f"{base} {rng.choice(PRODUCT_TAILS)}"
    if roll < 0.75:
        return f"{base} {rng.choice(PRODUCT_TAILS)} {rng.randint(1, 12)}"
    return f"{base} {rng.randint(2, 900)}"


def title(rng: random.Random) -> str:
    """The title of a work."""
    first_thing, second_thing = rng.choice(THINGS).capitalize(), rng.choice(THINGS).capitalize()
    form = rng.choice(
        [
            "The {a} {b}",
            "{a} {b}",
            "The {a} of {n}",
            "{a} and {b}",
            "A {a} in {n}",
            "{n}",
            "The {a}",
            "{n}'s {a}",
            "{a} of the {b}",
            "The {b} of the {a}",
            "{n}: The {a}",
            "{a} {r}",
        ]
    )
    return form.format(a=first_thing, b=second_thing, n=name(rng), r=rng.randint(2, 9))


def year(rng: random.Random) -> str:
    return str(rng.randint(1850, 2030) if rng.random() < 0.85 else rng.randint(900, 1849))


def date(rng: random.Random) -> str:
    day, month, yr = rng.randint(1, 28), rng.randint(1, 12), int(year(rng))
    form = rng.randrange(6)
    if form == 0:
        return f"{yr}-{month:02d}-{day:02d}"
    if form == 1:
        return f"{day} {MONTHS[month - 1]} {yr}"
    if form == 2:
        return f"{MONTHS[month - 1]} {day}, {yr}"
    if form == 3:
        return f"{MONTHS[month - 1]} {yr}"
    if form == 4:
        return f"{yr:04d}-{month:02d}-{day:02d}T00:00:00Z"
    return f"{day}.{month}.{yr}"


def price(rng: random.Random) -> str:
    amount = rng.choice(
        [
            f"{rng.randint(1, 999)}",
            f"{rng.randint(0, 999)}.{rng.choice(['99', '50', '95', '00', '49', '75'])}",
        ]
    )
    if rng.random() < 0.2:
        amount = f"{rng.randint(1, 99)},{rng.randint(0, 999):03d}"
    mark = rng.choice(
        ["${}", "€{}", "£{}", "{} EUR", "{} dollars", "{} euros", "CHF {}", "¥{}", "{} USD", "{} SEK"]
    )
    return mark.format(amount)


def version(rng: random.Random) -> str:
    parts = [str(rng.randint(0, 30)) for _ in range(rng.randint(2, 3))]
    return (
        rng.choice(["", "", "v", "version "])
        + ".".join(parts)
        + rng.choice(["", "", "", "-rc1", "-beta", " LTS"])
    )


def number(rng: random.Random) -> str:
    value = rng.randint(1, 10 ** rng.randint(1, 6))
    roll = rng.random()
    if roll < 0.25:
        return f"{value:,}"
    if roll < 0.4:
        return f"{rng.randint(0, 99)}.{rng.randint(0, 99)}"
    return str(value)


def quantity(rng: random.Random) -> str:
    return f"{number(rng)} {rng.choice(UNITS)}" if rng.random() < 0.7 else number(rng)


def address(rng: random.Random) -> str:
    street = f"{name(rng, 1, 2)} {rng.choice(STREETS)}" if rng.random() < 0.6 else name(rng, 1, 2) + "straße"
    line = f"{rng.randint(1, 400)} {street}" if rng.random() < 0.6 else f"{street} {rng.randint(1, 200)}"
    return line if rng.random() < 0.4 else f"{line}, {rng.randint(1000, 99999)} {place(rng)}"


def contact(rng: random.Random) -> str:
    host = f"{word(rng, 1, 2)}.{rng.choice(TLDS)}"
    return rng.choice(
        [
            f"{word(rng, 1, 2)}@{host}",
            f"{rng.choice(['support', 'info', 'sales', 'help', 'press'])}@{host}",
            f"https://{host}/{word(rng, 1, 2)}",
            f"www.{host}",
            f"+{rng.randint(1, 99)} {rng.randint(10, 999)} {rng.randint(1000, 999999)}",
            f"{rng.randint(10, 240)}.{rng.randint(0, 255)}.{rng.randint(0, 255)}.{rng.randint(1, 254)}",
        ]
    )


SCRIPTS = (
    *((0x3B1, 0x3C9), (0x430, 0x44F), (0x5D0, 0x5EA), (0x627, 0x64A)),
    *((0x905, 0x939), (0x4E00, 0x4FFF), (0x30A2, 0x30F3), (0xAC00, 0xAE00)),
)
"""First and last letters of Greek, Cyrillic, Hebrew, Arabic, Devanagari, Han, Katakana and Hangul."""


def foreign(rng: random.Random) -> str:
    """One or two words in another script."""
    low, high = rng.choice(SCRIPTS)
    most = 4 if low > 0x3000 else 8
    words = ["".join(chr(rng.randint(low, high)) for _ in range(rng.randint(2, most))) for _ in range(2)]
    return " ".join(words[: rng.randint(1, 2)]).title()


def compound(rng: random.Random) -> str:
    """Values that go on behind a stop, a colon, a hyphen or a comma: spans, double names, lists, sums."""
    return rng.choice(COMPOUND)(rng)


def _span(rng: random.Random) -> str:
    start, end = (rng.choice((clock, clock, number, weekday, date, price, year))(rng) for _ in range(2))
    if rng.random() < 0.7:
        kind = rng.choice((clock, clock, number, weekday, price, year, date))
        start, end = kind(rng), kind(rng)
    form = rng.choice(
        ("{} to {}", "{} to {}", "{}-{}", "{} - {}", "{}–{}", "{} and {}", "{} or {}", "from {} to {}")
    )
    span = form.format(start, end)
    return f"{span} {rng.choice(UNITS)}" if rng.random() < 0.3 else span


def _double(rng: random.Random) -> str:
    left_name, right_name = last(rng), last(rng)
    joined = f"{left_name}{rng.choice(('-', '-', '-', ' ', ' & ', '/'))}{right_name}"
    full = f"{first(rng)} {joined}"
    return accented(rng, full) if rng.random() < 0.4 else full


def _dotted(rng: random.Random) -> str:
    initials = " ".join(f"{rng.choice('ABCDEFGHIJKLMNOPRSTUVWZ')}." for _ in range(rng.randint(1, 3)))
    options = (
        f"{initials} {last(rng)}",
        f"{rng.choice(('St.', 'Dr.', 'Mr.', 'Mrs.', 'No.', 'Mt.', 'Prof. Dr.'))} {name(rng)} {name(rng)}",
        f"{name(rng)} {rng.choice(('Inc.', 'Co.', 'Ltd.', 'Jr.', 'e.V.', 'S.A.', 'B.V.', 'N.V.'))}",
        f"{rng.randint(0, 99)}.{rng.randint(0, 99)} {rng.choice(UNITS)}",
        f"{rng.randint(1, 12)}:{rng.randint(0, 59):02d} {rng.choice(('a.m.', 'p.m.'))}",
    )
    return rng.choice(options)


def _several(rng: random.Random) -> str:
    kind = rng.choice((person, place, name, last, weekday, product, foreign))
    values = [kind(rng) for _ in range(rng.randint(2, 3))]
    return (
        rng.choice((", ", " / ", "; ")).join(values[:-1])
        + rng.choice((" and ", ", ", " or ", " & "))
        + values[-1]
    )


def _entitled(rng: random.Random) -> str:
    return rng.choice(("{}: {}", "{} - {}", "{} ({})", "{}, {}")).format(title(rng), title(rng))


def _lettered(rng: random.Random) -> str:
    """Words and letters with figures, as crew Delta, 44b Almond Yard, gate C12 or level -2."""
    word_, figure = rng.choice(THINGS + GOODS), rng.randint(1, 999)
    letter = rng.choice("abcdefghkmnprstuvwxABCDEFGHKLMNPRSTX")
    options = (
        f"{word_} {name(rng)}",
        f"{figure}{letter} {name(rng)} {rng.choice(STREETS)}",
        f"{word_} {letter}{figure}",
        f"level -{figure}",
        f"{word_} {figure}{letter}",
        f"{figure} {word_} {rng.choice(UNITS)}",
        f"{figure}%",
        f"{number(rng)} x {number(rng)}",
    )
    return rng.choice(options)


def _reachable(rng: random.Random) -> str:
    """Mail addresses, hosts, pages and telephone numbers, of words as well as of invented ones."""

    def part() -> str:
        return rng.choice((word(rng, 1, 3), rng.choice(THINGS).replace(" ", ""), last(rng).lower()))

    host = rng.choice((".", "-", "")).join((part(), part())) if rng.random() < 0.5 else part()
    host += f".{rng.choice((*TLDS, 'example', 'example', 'org', 'io', 'eu', 'local'))}"
    options = (
        f"{part()}@{host}",
        f"{part()}.{part()}@{host}",
        f"{part()}{rng.choice('-_')}{part()}@{host}",
        host,
        f"www.{host}",
        f"https://{host}/{part()}/{part()}",
        f"{part()}.{host}:{rng.randint(80, 65535)}",
        f"0{rng.randint(100, 999)} {rng.randint(100, 999)} {rng.randint(100, 9999)}",
        "+" + " ".join(str(rng.randint(1, 10 ** rng.randint(1, 4))) for _ in range(rng.randint(3, 5))),
    )
    return rng.choice(options)


def _release(rng: random.Random) -> str:
    parts = ".".join(str(rng.randint(0, 40)) for _ in range(rng.randint(2, 4)))
    tail = rng.choice(("", "", "-rc", "-beta", "-rc.", "+build.", "a", "b", ".dev"))
    tail += str(rng.randint(1, 20)) if tail.endswith(".") or (tail and rng.random() < 0.7) else ""
    return f"{rng.choice(('', 'v', 'version ', 'release ', name(rng, 1, 2) + ' '))}{parts}{tail}"


def clock(rng: random.Random) -> str:
    hour, minute = rng.randint(0, 23), rng.choice([0, 5, 10, 15, 20, 30, 40, 45, 50])
    if rng.random() < 0.5:
        return f"{hour:02d}:{minute:02d}"
    return f"{hour % 12 + 1}:{minute:02d} {'am' if hour < 12 else 'pm'}"


def weekday(rng: random.Random) -> str:
    return rng.choice("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())


def short(rng: random.Random) -> str:
    """A short value of few tokens, for the first lessons."""
    real_name = rng.choice([rng.choice(CITIES), rng.choice(FIRST), rng.choice(THINGS)])
    return rng.choice([real_name, name(rng, 1, 1), name(rng, 1, 2), str(rng.randint(1, 999))])


def _pick(options: list[str]) -> Callable[[random.Random], str]:
    return lambda rng: rng.choice(options)


COMPOUND = (
    _span,
    _span,
    _double,
    _dotted,
    _several,
    _entitled,
    _lettered,
    _reachable,
    _reachable,
    _release,
    foreign,
)

KINDS: dict[str, Callable[[random.Random], str]] = {
    "person": person,
    "place": place,
    "org": org,
    "code": code,
    "product": product,
    "title": title,
    "year": year,
    "date": date,
    "price": price,
    "version": version,
    "number": number,
    "quantity": quantity,
    "address": address,
    "contact": contact,
    "clock": clock,
    "weekday": weekday,
    "status": _pick(STATUS),
    "material": _pick(MATERIALS),
    "field": _pick(FIELDS),
    "occupation": _pick(OCCUPATIONS),
    "role": _pick(ROLES),
    "language": _pick(LANGUAGES),
    "country": _pick(COUNTRIES),
    "name": name,
    "short": short,
}


def value(kind: str, rng: random.Random) -> str:
    """One value of `kind` (a key of KINDS)."""
    return KINDS[kind](rng)
