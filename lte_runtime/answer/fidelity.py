"""Whether an answer says the values that it cites as they were published, and putting them right. Pure.

A small model copies a value now and then with a slip: "Astra" for "Astana", "<s>" for "</s>". What is cited
is known, so a run of words that comes near a cited value without being it is exchanged for that value; so is
an answer that is a value's first words and no more. An answer that is far from every value was not meant to
quote one, and stays as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from rapidfuzz.distance import Indel

NEAR = 2 / 3
"""Share of letters in common, in order, of both texts, from which words are a slip of a value.

So much have the shortest slips, one letter of three or half of a value left out; two names that have nothing
to do with each other mostly have less than half."""
LONGEST = 256
"""Characters of the longest value that is looked for. Longer ones are told in other words, not quoted."""
MOST_WORDS = 128
"""Words of an answer that are compared, the first ones; answers from facts are one line, mostly one value."""

_WORD = re.compile(r"\S+")
_Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class CitedValue:
    """A value as published with its aliases, and the names of the subject that it is told of."""

    texts: tuple[str, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Nearest:
    """The run of words of an answer that is most like a value, `likeness` in [0, 1]."""

    likeness: float
    span: tuple[int, int]
    text: str


def corrected(
    answer: str, values: Sequence[CitedValue], question: str = "", *, cut_short: bool = False
) -> str:
    """`answer` with each value that it misquotes as published; the same text where it misquotes none.

    Left alone are values that it also quotes, values that the question names (it asks whether or which, not
    for the value), names of subjects and words of the question. With `cut_short` the answer reached the token
    limit: its last words may be the beginning of a value, which the caller had no room for.
    """
    quoted = [span for value in values for text in value.texts for span in quotations(answer, text)]
    missing = [value for value in values if not any(quotes(text, answer, question) for text in value.texts)]
    slips = [slip for value in missing for slip in _slips(answer, value, question, quoted)]
    if cut_short:
        slips = [slip for slip in slips if slip.span[1] < len(answer.rstrip())]
    return _exchanged(answer, slips)


def completed(answer: str, values: Sequence[CitedValue], question: str = "") -> str:
    """The values alone, parted by commas, where the answer leaves one out; else the same text.

    For a question that surely asks for them. It is left alone where the question names one of them (it asks
    whether), and where one is too long to be quoted.
    """
    texts = [text for value in values for text in value.texts]
    if any(quotes(text, question) for text in texts) or not all(map(is_quotable, values)):
        return answer
    if all(any(quotes(text, answer) for text in value.texts) for value in values):
        return answer
    return ", ".join(value.texts[0] for value in values)


def is_quotable(value: CitedValue) -> bool:
    """Whether `corrected` looks for the value at all."""
    return any(len(text) <= LONGEST for text in value.texts)


def quotes(value: str, *texts: str) -> bool:
    """Whether `value` stands in one of the texts as published; see `quotations`."""
    return any(next(quotations(text, value), None) for text in texts)


def quotations(text: str, value: str) -> Iterator[_Span]:
    """Where `value` stands in `text` with all its signs, between word boundaries. Case and the kind of blanks
    do not count."""
    words = value.split()
    if not words:
        return
    pattern = re.compile(r"\s+".join(map(re.escape, words)), re.IGNORECASE)
    for match in pattern.finditer(text):
        start, end = match.span()
        if not (_goes_on(text[:start][::-1], text[start]) or _goes_on(text[end:], text[end - 1])):
            yield start, end


def _goes_on(beyond: str, edge: str) -> bool:
    """Whether the word at whose `edge` a match ends goes on: in letters, or a figure behind a sign ("5.2").

    Scripts without capitals write words together, or with their particles: each of their letters is an edge.
    """
    if not beyond or not edge.isalnum() or _uncased(edge):
        return False
    if beyond[0].isalnum():
        return not _uncased(beyond[0])
    further = beyond[1:2]
    return edge.isdigit() and beyond[0] in ".,:/-_" and further.isalnum()


def _uncased(letter: str) -> bool:
    return unicodedata.category(letter) == "Lo"


def nearest(answer: str, text: str, barred: Sequence[_Span] = (), question: str = "") -> Nearest | None:
    """The words of `answer` that are most like `text`, overlapping no span of `barred` and not standing in
    `question`; None where all are barred, or so long or short that less than half can be alike.

    Capitals count: "an" is no slip of "Ana".
    """
    plain, best = _plain(text), None
    for (start, end), run in _runs(answer, plain):
        likeness = Indel.normalized_similarity(run, plain)
        if best is not None and likeness <= best.likeness:
            continue
        span = _trimmed(answer, start, end, text)
        if any(span[0] < high and low < span[1] for low, high in barred):
            continue
        if not quotes(answer[slice(*span)], question):
            best = Nearest(likeness, span, text)
    return best


def _slips(answer: str, value: CitedValue, question: str, quoted: Sequence[_Span]) -> list[Nearest]:
    """The place where `value` is misquoted, if there is one."""
    texts = [text for text in value.texts if len(text) <= LONGEST]
    names = [name for name in value.names if not any(_plain(name) in _plain(text) for text in texts)]
    barred = [*quoted, *(span for name in names for span in quotations(answer, name))]
    runs = [run for text in texts if (run := nearest(answer, text, barred, question)) is not None]
    best = max(runs, key=lambda run: run.likeness, default=None)
    if best is not None and best.likeness >= NEAR:
        return [best]
    return [] if quotes(answer, question) else list(islice(_beginnings(answer, texts), 1))


def _beginnings(answer: str, texts: Sequence[str]) -> Iterator[Nearest]:
    """Texts whose first words are all that the answer says: the model stopped within the value."""
    for text in texts:
        start, end = _trimmed(answer, 0, len(answer), text)
        words = answer[start:end].split()
        if words and text.split()[: len(words)] == words:
            yield Nearest(NEAR, (start, end), text)


def _runs(answer: str, plain: str) -> Iterator[tuple[_Span, str]]:
    """Runs of words of about the length of `plain`: where they stand, and their plain letters without the
    punctuation around them that `plain` lacks."""
    spans = [match.span() for match in _WORD.finditer(answer)][:MOST_WORDS]
    words = [_plain(answer[slice(*span)]) for span in spans]
    for first, (start, _) in enumerate(spans):
        run = ""
        for place in range(first, len(spans)):
            run = f"{run} {words[place]}" if run else words[place]
            if len(run) > 3 * len(plain) + 3:
                break
            low, high = _trimmed(run, 0, len(run), plain)
            if high - low > 0 and len(plain) <= 3 * (high - low):
                yield (start, spans[place][1]), run[low:high]


def _trimmed(text: str, start: int, end: int, value: str) -> _Span:
    """The span without punctuation at its ends, but for signs with which `value` begins or ends."""
    while start < end and _is_mark(text[start]) and text[start] != value[:1]:
        start += 1
    while start < end and _is_mark(text[end - 1]) and text[end - 1] != value[-1:]:
        end -= 1
    return start, end


def _is_mark(sign: str) -> bool:
    return unicodedata.category(sign)[0] == "P"


def _exchanged(answer: str, slips: Sequence[Nearest]) -> str:
    """The likeliest slips first; of those that overlap the first stays."""
    kept: list[Nearest] = []
    for slip in sorted(slips, key=lambda slip: -slip.likeness):
        if all(slip.span[1] <= other.span[0] or other.span[1] <= slip.span[0] for other in kept):
            kept.append(slip)
    for slip in sorted(kept, key=lambda slip: -slip.span[0]):
        answer = answer[: slip.span[0]] + slip.text + answer[slip.span[1] :]
    return answer


def _plain(text: str) -> str:
    """Letters without their marks, which a slip loses first; blanks of one kind."""
    signs = unicodedata.normalize("NFKD", text)
    return " ".join("".join(sign for sign in signs if not unicodedata.combining(sign)).split())
