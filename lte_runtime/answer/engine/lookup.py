"""Prompt lookup: guesses the next tokens of an answer that copies from its prompt. Pure.

An edited answer mostly repeats a span of a fact in its prompt. Tokens guessed from the prompt are
checked by the model in one pass, so that a span costs one pass and not one for each token (Saxena 2023,
"Prompt Lookup Decoding"; the check is that of Leviathan et al. 2023, arXiv 2211.17192, for greedy decoding).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MOST = 8
LONGEST_MATCH = 3


def same_words(tokenizer: Any) -> dict[int, int]:
    """Token ids whose text differs from that of a smaller id by blanks around it only, with that id.

    The first word of an answer has no blank before it, the same word in the fact has one.
    """
    first_ids: dict[str, int] = {}
    smaller_ids: dict[int, int] = {}
    for number, piece in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))):
        word = (piece or "").strip("Ġ▁ ")
        if word and first_ids.setdefault(word, number) != number:
            smaller_ids[number] = first_ids[word]
    return smaller_ids


def guess(tokens: Sequence[int], words: Mapping[int, int], most: int = MOST) -> list[int]:
    """Tokens that followed the earliest longest match of the last ones; empty without a match.

    Facts stand first in a prompt, the best one before the others: the earliest match is the likeliest.
    """
    canonical = [words.get(token, token) for token in tokens]
    for length in range(min(LONGEST_MATCH, len(tokens) - 1), 0, -1):
        ending = canonical[-length:]
        for start in range(len(canonical) - length):
            if canonical[start : start + length] == ending:
                return list(tokens[start + length : start + length + most])
    return []
