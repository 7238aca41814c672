"""Metrics of knowledge editing, on free decoding. Pure."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

_ARTICLE = re.compile(r"\b(a|an|the)\b")


def normalise(text: str) -> str:
    """Text as answers are compared: NFKC, case, articles, punctuation and white space removed.

    As SQuAD's evaluation does (Rajpurkar et al., 2016), for all scripts. Signs of currencies and plus signs
    are kept: they change what is meant.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    letters = "".join(" " if unicodedata.category(c)[0] in "PZ" else c for c in _join_numbers(folded))
    return " ".join(_ARTICLE.sub(" ", letters).split())


def _join_numbers(text: str) -> str:
    """`1,040` and `1040` are one number; the point of `4.5` stays (as a sign that is no punctuation)."""
    return re.sub(r"(?<=\d)\.(?=\d)", "+", re.sub(r"(?<=\d),(?=\d{3}\b)", "", text))


def matches(answer: str, accepted: Iterable[str]) -> bool:
    """Whether the normalised answer is one of the accepted texts; an empty answer never is."""
    normalised = normalise(answer)
    return bool(normalised) and any(normalised == normalise(text) for text in accepted)


def contains(answer: str, accepted: Iterable[str], others: Iterable[str] = ()) -> bool:
    """Whether an accepted text stands in the answer, between word boundaries, and none of the `others`.

    All are normalised. Where texts overlap the longest counts: "New York City" does not contain "New York"
    when it is one of the others, and "mezzo soprano", accepted, does not contain "soprano".
    """
    right = {normalise(text) for text in accepted} - {""}
    candidates = sorted(right | {normalise(text) for text in others} - {""}, key=len, reverse=True)
    words = re.compile(rf"(?<!\S)(?:{'|'.join(map(re.escape, candidates))})(?!\S)")
    present = set(words.findall(normalise(answer))) - {""}
    return bool(present) and present <= right


def same_answer(a: str, b: str) -> bool:
    """Locality: whether two answers are equal after normalising."""
    return normalise(a) == normalise(b)


def ngram_entropy(tokens: Sequence[object]) -> float | None:
    """Fluency: weighted n-gram entropy in bits, times 100; None for fewer than three tokens.

    The mean of 2/3 of the entropy of bigrams and 4/3 of that of trigrams (ROME, Meng et al., 2022).
    """
    if len(tokens) < 3:
        return None
    return 100.0 * (2 / 3 * _entropy(tokens, 2) + 4 / 3 * _entropy(tokens, 3)) / 2


def _entropy(tokens: Sequence[object], n: int) -> float:
    counts = Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
    total = sum(counts.values())
    return -sum(c / total * math.log2(c / total) for c in counts.values())


def mean(values: Iterable[float | bool | None]) -> float | None:
    """Mean of what is there, rounded to four places; None when nothing is."""
    present = [float(v) for v in values if v is not None]
    return round(sum(present) / len(present), 4) if present else None


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of words after normalising (Lin, 2004); 0 where one is empty."""
    answer_words, reference_words = normalise(answer).split(), normalise(reference).split()
    lengths = [0] * (len(reference_words) + 1)
    for word in answer_words:
        before = 0
        for place, other in enumerate(reference_words, start=1):
            before, lengths[place] = (
                lengths[place],
                (before + 1 if word == other else max(lengths[place], lengths[place - 1])),
            )
    common = lengths[-1]
    return 2 * common / (len(answer_words) + len(reference_words)) if common else 0.0
