"""What the scope gate sees of a question and one path of facts: plain numbers, no clock, no file, no model.

The subject's name is found in the question and taken out; what is left of the question is compared with what
is left of the fact's view. All lists of words here are closed classes of English (negations, words of time
shift, question words), not phrases of any data set.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TypeVar

from rapidfuzz.distance import Indel

from lte_runtime.names.mention import Mention, Mentions
from lte_runtime.types import Fact

T = TypeVar("T")
PLACEHOLDER = "it"
"""Stands where a name was taken out; a pronoun keeps the sentence one that the encoder has met."""

_WORD = re.compile(r"\w+[+#]*")
_NEGATIONS = frozenset(
    "no not never none nobody nothing nowhere neither nor without except excluding besides cannot".split()
)
_CONTRACTED = re.compile(r"(?<=\w)n['’]t\b|\bother than\b|\brather than\b|\bno longer\b", re.IGNORECASE)
_OTHER_PART = {"agent": "patient", "patient": "agent"}
_BE = frozenset("is are was were be been being am".split())
_BACKWARD = frozenset(
    "former formerly previous previously before prior earlier old original originally past".split()
)
_SHIFTS = _BACKWARD | frozenset("ex used once next future later upcoming first last second third".split())
_QUESTION_WORDS = frozenset(
    "who whom whose what which where when why how is are was were do does did can could has have had will"
    " would shall should may might must the a an in on at of by for from to with under and or please tell"
    " name give since until i we you he she it they".split()
)
_NUMERIC_ASKED = re.compile(
    r"\b(when|how (many|much|old|long|tall|high|heavy|far|big|large|often)|"
    r"(what|which) (year|day|date|month|time))\b",
    re.IGNORECASE,
)
_NAME_ASKED = re.compile(r"\b(who|whom|whose)\b", re.IGNORECASE)
_QUESTION_KINDS = (
    ("who", _NAME_ASKED),
    ("when", re.compile(r"\b(when|(what|which) (year|day|date|time|month)|how early)\b", re.IGNORECASE)),
    ("count", re.compile(r"\bhow (?!do|did|is|are|was|can|must|may)\w+\b", re.IGNORECASE)),
    ("where", re.compile(r"\b(where|which (city|town|country|place|region|street|room))\b", re.IGNORECASE)),
)
_DATED = re.compile(
    r"\b(1[5-9]|20)\d\d\b|\b\d{1,2}[:.]\d\d\b|\b(January|February|March|April|June|July|August)\b"
    r"|\b(September|October|November|December)\b"
)
_STREET = re.compile(r"\W*\d+[A-Za-z]?,? [A-Z][^\W\d_]{2,}|.*\b(Street|Lane|Road|Square|Avenue)\b")
_LETTERS = re.compile(r"[^\W\d_][\w'’.-]*")

_WHO_DOES = re.compile(rf"(Which \w+|What \w+|Who) (\w+s) (?:the )?{PLACEHOLDER}\W*", re.IGNORECASE)
_NOUN_OF = re.compile(rf"The (?:.+ )?(\w+) of {PLACEHOLDER}")

KINDS = tuple(
    f"{question_kind}:{shape}"
    for question_kind in ("who", "when", "count", "where", "what")
    for shape in ("name", "word", "phrase", "date", "amount", "code")
)
"""What a question asks for, and the shape of a target: how well they go together is learnt."""


READ_PIECES = 128
"""How much is read of a question, and of each text that it is compared with.

A piece is up to four Latin letters or digits, or one other sign: about a token of the encoder, whose time
grows with them. 128 are some 90 English words. Of a longer text the beginning and the end are read, half as
many pieces each: what is asked stands there."""
_READ_CHARS = 8 * READ_PIECES
_PIECE = re.compile(r"[A-Za-z0-9]{1,4}|[^\sA-Za-z0-9]")
_GAP = " ... "
_MASKED_PROMPTS = 1_024  # each path of facts asks for the same ones, and there may be 64 names to look for
READ_CHARS = 5 * READ_PIECES + len(_GAP)
"""No text that `cut` has shortened is longer."""
_BEFORE = re.compile(r"(?<!\w)(\w+)[ \-/.]$")
_AFTER = re.compile(r"[ \-/.]?(\w+)")


def pieces(text: str) -> int:
    """About how many tokens an encoder makes of `text`."""
    return sum(1 for _ in _PIECE.finditer(text))


def cut(text: str) -> str:
    """`text` itself, or its beginning and its end when it has more than `READ_PIECES`; see there."""
    if len(text) <= READ_PIECES:
        return text
    if len(text) > _READ_CHARS:
        half = _READ_CHARS // 2
        text = " ".join(f"{text[:half]}{_GAP}{text[-half:]}".split())
    spans = [match.span() for match in _PIECE.finditer(text)]
    if len(spans) <= READ_PIECES:
        return text
    half = READ_PIECES // 2
    head, tail = text[: spans[half - 1][1]], text[spans[-half][0] :]
    return " ".join(f"{head}{_GAP}{tail}".split())


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a text: folded form, and where it stands in the text."""

    folded: str
    start: int
    end: int


def fold(text: str) -> str:
    """Case and accents removed: what names are compared by."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()


_CACHED_CHARS = READ_CHARS  # longer texts come from outside, and would let a caller fill the memory


def _cached(read: Callable[[str], T]) -> Callable[[str], T]:
    """Caches what `read` gives for short texts: each path of facts asks the same of the same ones."""
    cached = lru_cache(maxsize=4_096)(read)
    return lambda text: cached(text) if len(text) <= _CACHED_CHARS else read(text)


@_cached
def words(text: str) -> tuple[Word, ...]:
    """The words of a text."""
    return tuple(Word(fold(m.group()), m.start(), m.end()) for m in _WORD.finditer(text))


@_cached
def _folded(text: str) -> tuple[str, ...]:
    return tuple(word.folded for word in words(text))


@_cached
def _vocabulary(text: str) -> frozenset[str]:
    return frozenset(_folded(text))


def names_of(fact: Fact) -> tuple[str, ...]:
    """Names that a question may call the fact by: subject and aliases, else proper names of its prompt."""
    names = tuple(n for n in (fact.subject, *fact.subject_aliases) if n)
    if names or not fact.prompt:
        return names
    prompt = cut(fact.prompt)
    return tuple(prompt[a:b] for a, b in anchors(prompt))


def anchors(text: str) -> tuple[tuple[int, int], ...]:
    """Runs of words that look like names or codes: capitalised (not a question word) or with a digit."""
    runs: list[tuple[int, int]] = []
    for match in _WORD.finditer(text):
        if not _looks_named(match.group()):
            continue
        joined = runs and not re.search(r"[?!;:\"]|\w", text[runs[-1][1] : match.start()])
        runs[-1:] = [(runs[-1][0], match.end())] if joined else [*runs[-1:], match.span()]
    return tuple(runs)


def _looks_named(word: str) -> bool:
    if any(map(str.isdigit, word)):
        return True
    return word[0].isupper() and fold(word) not in _QUESTION_WORDS


def _holds(text_words: Sequence[Word], phrase: Sequence[str]) -> bool:
    """Whether the words of a text hold a run of words."""
    size, phrase = len(phrase), list(phrase)
    folded = [word.folded for word in text_words]
    return any(folded[i : i + size] == phrase for i in range(len(text_words) - size + 1))


@_cached
def codes_of(text: str) -> str:
    """The digits of a name in their order: they agree wholly or the name is another one."""
    return "".join(filter(str.isdigit, text))


def mask(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """`text` with each span replaced by the placeholder, from right to left."""
    for start, end in sorted(spans, reverse=True):
        text = text[:start] + PLACEHOLDER + text[end:]
    return text


def masked_view(fact: Fact) -> str:
    """What the fact is about without its subject's name and without its target."""
    if fact.relation:
        return f"The {cut(fact.relation)} of {PLACEHOLDER}"
    return _masked_prompt(cut(fact.prompt), names_of(fact), bool(fact.subject))


@lru_cache(_MASKED_PROMPTS)
def _masked_prompt(prompt: str, names: tuple[str, ...], first: bool) -> str:
    """`prompt` without the `first` of the names that it holds, or without all of them."""
    mentions = Mentions(prompt)
    located = (mentions.of(name) for name in names)
    spans = ((mention.start, mention.end) for mention in located if mention and mention.named)
    return mask(prompt, islice(spans, 1) if first else spans)


def extended(question: str, span: Mention, view: str) -> float:
    """1 when the name goes on in the question (`Acme Labs` for `Acme`, `SKU 4711-B` for `SKU 4711`).

    A neighbouring word that the fact's view knows (`Acme CEO`) is not part of a name.
    """
    after = _AFTER.match(question[span.end :])
    before = _BEFORE.search(question[: span.start])
    view_words = {w.folded for w in words(view)}
    beside = [m.group(1) for m in (after, before) if m is not None]
    return float(any(_looks_named(word) and fold(word) not in view_words for word in beside))


def foreign(question: str, span: Mention | None, fact_texts: Sequence[str]) -> float:
    """Share of the question's proper names and codes that the fact does not know."""
    named = _named(question)
    if not named:
        return 0.0
    outside = [w for w in named if span is None or w.end <= span.start or w.start >= span.end]
    vocabulary = frozenset().union(*(_vocabulary(cut(text)) for text in fact_texts))
    return sum(w.folded not in vocabulary for w in outside) / len(named)


@_cached
def _named(question: str) -> tuple[Word, ...]:
    """Words that look like names or codes."""
    return tuple(w for w in words(question) if _looks_named(question[w.start : w.end]))


@_cached
def content_words(text: str) -> tuple[str, ...]:
    """Words that are neither function words nor the placeholder."""
    return tuple(w.folded for w in words(text) if w.folded not in _QUESTION_WORDS)


@_cached
def negated(text: str) -> bool:
    return _CONTRACTED.search(text) is not None or not _NEGATIONS.isdisjoint(_folded(text))


@_cached
def roles(masked: str) -> frozenset[tuple[str, str]]:
    """Stems of verbs with the part that the placeholder has in them, as far as word order tells.

    `it is led by` and `the leader of it` make it the patient of lead; `it leads`, `does it lead` and `led by
    it` the agent. Words behind the placeholder that are no verbs are taken for some too.
    """
    folded = _folded(masked)
    verb_roles: set[tuple[str, str]] = set()
    be = it = False
    for i, word in enumerate(folded):
        after = folded[i + 1 : i + 4]
        if word in _BE or word == PLACEHOLDER:
            be, it = be or word in _BE, it or word == PLACEHOLDER
        elif after[:1] == ("by",):
            if after[1:2] == (PLACEHOLDER,):
                verb_roles.add((_stem(word), "agent"))
            elif (be and it) or after[1:3] == ("of", PLACEHOLDER):
                verb_roles.add((_stem(word), "patient"))
        elif after[:2] == ("of", PLACEHOLDER) and word.endswith(("er", "or")):
            verb_roles.add((word[:-2], "patient"))
        elif it and not be and word not in _QUESTION_WORDS:
            verb_roles.add((_stem(word), "agent"))
    return frozenset(verb_roles)


def turned(masked_question: str, view: str) -> bool:
    """Whether one verb makes the subject its agent in one of the two and its patient in the other."""
    of_view = roles(view)
    shorter = {(stem[:-1], part) for stem, part in of_view}
    turned_asked = {(stem, _OTHER_PART[part]) for stem, part in roles(masked_question)}
    longer = {(stem[:-1], part) for stem, part in turned_asked}
    return not (turned_asked.isdisjoint(of_view | shorter) and longer.isdisjoint(of_view))


def nominal(masked_question: str, view: str) -> str | None:
    """The question with the view's noun for its verb: `Who conducts it?` asks for `The conductor of it`.

    None where the verb is another, or not in the present.
    """
    verb_match, noun_match = _WHO_DOES.fullmatch(masked_question), _NOUN_OF.fullmatch(view)
    if verb_match is None or noun_match is None:
        return None
    noun = fold(noun_match[1])
    act = noun[:-2] if noun.endswith(("er", "or")) else noun
    if not _same_stem(_stem(fold(verb_match[2])), act):
        return None
    return f"{verb_match[1]} is the {noun_match[1]} of {PLACEHOLDER}?"


def _stem(word: str) -> str:
    return re.sub(r"(?<=...)(?:ed|es|ing|s)$", "", word)


def _same_stem(a: str, b: str) -> bool:
    """The same letters but for one at the end: `manag` of `managed` and `manage`."""
    return (a.startswith(b) or b.startswith(a)) and abs(len(a) - len(b)) <= 1


@_cached
def shifted(text: str) -> frozenset[str]:
    """Words that move a question in time or rank: former, next, first ..."""
    return _vocabulary(text) & _SHIFTS


def backward(question: Sequence[Word]) -> tuple[Word, ...]:
    """Words of a question that ask for what was before."""
    return tuple(word for word in question if word.folded in _BACKWARD)


def asks_whether(question: Sequence[Word]) -> bool:
    """Whether the question asks for yes or no: it begins with a verb instead of who, what, how ..."""
    first = question[0].folded if question else ""
    return first in _QUESTION_WORDS and not first.startswith(("wh", "how"))


def mentioned(question: Sequence[Word], target: str) -> float:
    """1 when the question already tells the answer: it asks for another one, or the other way round."""
    if len(target) > READ_CHARS:
        return 0.0
    target_words = [w.folded for w in words(target)]
    return float(bool(target_words) and _holds(question, target_words))


def kind_clash(masked_question: str, target: str) -> float:
    """1 when the question wants a number or date and the target has none, or a person and it is one."""
    if _asks_number(masked_question):
        return float(not any(c.isdigit() for c in target))
    return float(target[:1].isdigit() and _NAME_ASKED.search(masked_question) is not None)


@_cached
def _asks_number(masked_question: str) -> bool:
    return _NUMERIC_ASKED.search(masked_question) is not None


def kinds(masked_question: str, target: str) -> str:
    """The one of `KINDS` that question and target make."""
    return f"{_question_kind(masked_question)}:{_shape(target)}"


@_cached
def _question_kind(masked_question: str) -> str:
    return next((name for name, pattern in _QUESTION_KINDS if pattern.search(masked_question)), "what")


@_cached
def _shape(target: str) -> str:
    if any(c.isdigit() for c in target) and not _STREET.match(target):
        if _DATED.search(target):
            return "date"
        return "amount" if re.match(r"\W*\d", target) else "code"
    letters = _LETTERS.findall(target)
    capitals = sum(word[0].isupper() for word in letters)
    if capitals >= 2 and len(letters) <= 5:
        return "name"
    return "word" if capitals == len(letters) == 1 else "phrase"


def shared_words(masked_question: str, view: str) -> float:
    """Share of the view's content words (by five letters of their stems) that the question repeats."""
    view_stems = {_stem(word)[:5] for word in content_words(view)}
    return len(_stems(masked_question) & view_stems) / len(view_stems) if view_stems else 0.0


def other_words(masked_question: str, view: str) -> tuple[str, ...]:
    """Content words of the question that the view does not have, by five letters of their stems."""
    view_stems = _stems(view)
    return tuple(word for word in content_words(masked_question) if _stem(word)[:5] not in view_stems)


@_cached
def _stems(text: str) -> frozenset[str]:
    return frozenset(_stem(word)[:5] for word in _folded(text))


def swapped(masked_question: str, view: str) -> float:
    """How much the two are one sentence with another word in it (`the father of it`, `the mother of it`)."""
    alike = Indel.normalized_similarity(_folded(masked_question), _folded(view))
    return alike * (1.0 - shared_words(masked_question, view))
