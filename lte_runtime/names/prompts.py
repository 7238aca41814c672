"""Names that a prompt speaks of, told from the way in which they are written, whatever its language."""

from __future__ import annotations

import re
from itertools import pairwise

_QUOTED = re.compile('["“«„「『]([^"“”«»„「」『』]{2,60})["”“»」』]')
_WORD = re.compile(r"\w[\w.+#&'’-]*")
_JOINING = 3  # letters at most of a small word within a name: University of Ulm, Ludwig van Beethoven
_SENTENCE_ENDS = (".", "?", "!")
_TRIMMED = ".'’-"

_Run = list[re.Match[str]]


def names_in(prompt: str) -> tuple[str, ...]:
    """Quoted spans, and runs of words with a capital or a digit.

    A word that begins a sentence has a capital in any case. Alone it is no name, and before others it may
    belong to their name or not: both are names then.
    """
    names = [match.group(1) for match in _QUOTED.finditer(prompt)]
    for run in _runs(prompt):
        if not _only_opens(prompt, run[0]):
            names.append(_text(prompt, run))
        elif len(run) > 1:
            names += [_text(prompt, run[1:]), _text(prompt, run)]
    return tuple(dict.fromkeys(name for name in names if len(name) > 1))


def _runs(prompt: str) -> list[_Run]:
    """Neighbours that are written like names, a single small word between two of them included."""
    runs: list[_Run] = []
    between: _Run = []
    for word in _WORD.finditer(prompt):
        if not _like_name(word.group()):
            between.append(word)
        elif runs and _continues(
            prompt, [runs[-1][-1], *between, word], joins=not _only_opens(prompt, runs[-1][-1])
        ):
            runs[-1] += [*between, word]
            between = []
        else:
            runs.append([word])
            between = []
    return runs


def _continues(prompt: str, words: _Run, *, joins: bool) -> bool:
    """Whether the last of these words goes on with the name that the first one belongs to."""
    gaps = (prompt[a.end() : b.start()] for a, b in pairwise(words))
    if len(words) > 2 + joins or not all(gap.isspace() for gap in gaps):
        return False
    return all(len(word.group()) <= _JOINING for word in words[1:-1])


def _like_name(word: str) -> bool:
    return any(char.isupper() or char.isdigit() for char in word)


def _only_opens(prompt: str, word: re.Match[str]) -> bool:
    """Whether the word's only capital is the one with which it begins a sentence."""
    before = prompt[: word.start()].rstrip()
    begins = not before or before.endswith(_SENTENCE_ENDS)
    return begins and not _like_name(word.group()[1:])


def _text(prompt: str, run: _Run) -> str:
    return prompt[run[0].start() : run[-1].end()].rstrip(_TRIMMED)
