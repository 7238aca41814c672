"""Prompts as token ids: the Learning-to-Edit form with facts, the plain question without.

The form is that of Jiang et al., 2024 (arXiv 2402.11905). Facts and questions come from outside: they are
tokenised apart from the frame around them, and never become special tokens, whatever they spell.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from lte_runtime.errors import BadRequest
from lte_runtime.facts.keys import statement_of
from lte_runtime.names.normalise import key_form
from lte_runtime.templates import templates

_TEXTS = templates().prompt

_OPEN, _CLOSE = "\ue0f0", "\ue0f1"
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}")
_CONTENT = f"{_OPEN}0{_CLOSE}"
_BLANKS = re.compile("[^\\S\u00a0\u202f\u2007]+")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's ids, how many of the given facts it holds (the first ones), the ids of their values, and how
    many earlier turns of a conversation it leaves out."""

    token_ids: tuple[int, ...]
    used_facts: int
    values: tuple[tuple[int, ...], ...] = ()
    dropped_turns: int = 0


def build(tokenizer: Any, question: str, facts: Sequence[str] = (), *, max_tokens: int) -> Prompt:
    """The prompt of at most `max_tokens` ids; facts are best first and are dropped from the end.

    `tokenizer` is one of transformers'; its chat template is used where it has one. Raises `BadRequest`
    for an empty question and for one that does not fit.
    """
    if not question.strip():
        raise BadRequest("the question is empty")
    encoded = Spans(tokenizer)
    question_line = one_line(question)
    spans = encoded.fitting([one_line(fact) for fact in facts[:max_tokens]], max_tokens)
    ids = cache(
        lambda used: render(tokenizer, _frame(tokenizer, used), [question_line, *spans[:used]], encoded)
    )

    def fits(used: int) -> bool:
        return len(ids(used)) <= max_tokens

    # Two facts and more have one frame, so that the length grows with their number; one and none have others.
    counts = range(len(spans), 1, -1)
    first = 0 if counts and fits(counts[0]) else bisect_left(counts, True, key=fits)
    for used in (*counts[first : first + 1], 1, 0):
        if used <= len(spans) and fits(used):
            return Prompt(tuple(ids(used)), used)
    raise BadRequest(f"the question does not fit in {max_tokens} tokens")


class Spans:
    """Ids of a prompt's spans, each encoded once, however many prompts are tried."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        if text not in self._ids:
            self._ids[text] = untrusted(self._tokenizer, text)
        return self._ids[text]

    def fitting(self, facts: Sequence[str], max_tokens: int) -> Sequence[str]:
        """The first facts that alone take `max_tokens` at most; those behind them are not even encoded."""
        total = 0
        for place, fact in enumerate(facts):
            total += len(self(fact))
            if total > max_tokens:
                return facts[:place]
        return facts


def restated(subject: str, relation: str, prompt: str, target: str, statement: str) -> str:
    """A fact's statement behind its plain sentence, where it is another: publishers may put the target first
    or the relation into a verb."""
    plain = statement_of(subject, relation, prompt, target)
    return statement if key_form(plain) == key_form(statement) else f"{plain} {statement}"


def listed(subject: str, relation: str, prompt: str, targets: Sequence[str], members: int) -> str:
    """The members of a set-valued fact that are shown, of `members`, as one statement."""
    note = _list_note(len(targets), members)
    relation, prompt = (f"{text} {note}" if text else "" for text in (relation, prompt))
    return statement_of(subject, relation, prompt, ", ".join(targets))


def explained(statement: str, subject: str, alias: str) -> str:
    """A fact's statement with the note that a question which calls its subject `alias` needs."""
    return templates().statement.alias.format(statement=statement, subject=subject, alias=alias)


def _list_note(shown: int, members: int) -> str:
    """What stands behind the name of a set-valued relation: its value is a list, and whether it is cut."""
    texts = templates().statement
    return (texts.all_members if shown == members else texts.some_members).format(
        shown=shown, members=members
    )


def superseded(statement: str, held_from: str | None, held_until: str | None) -> str:
    """A statement with the note that it holds no longer, and when it held as far as that is known."""
    texts = templates().statement
    if held_from and held_until:
        template = texts.former_between
    elif held_from:
        template = texts.former_from
    else:
        template = texts.former_until if held_until else texts.former
    return template.format(statement=statement, start=held_from, end=held_until)


def one_line(text: str) -> str:
    """Without line breaks and runs of blanks, so that no text can imitate the frame's lines.

    No-break blanks belong to values ("1 299,50 kr") and stay.
    """
    return _BLANKS.sub(" ", text).strip()


def first_line(text: str) -> str:
    """What an answer keeps of generated text: everything before the first line break, trimmed."""
    return (text.strip().splitlines() or [""])[0].rstrip()


def ends(tokenizer: Any) -> frozenset[int]:
    """Ids that end an answer: the tokenizer's end token and what its chat template puts behind an answer."""
    end_ids = {tokenizer.eos_token_id} - {None}
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _CONTENT}]
        behind = tokenizer.apply_chat_template(turns, tokenize=False).partition(_CONTENT)[2].lstrip()
        added = tokenizer.get_added_vocab()
        end_ids |= {number for text, number in added.items() if behind.startswith(text)}
    return frozenset(end_ids)


def render(
    tokenizer: Any, frame: str, spans: Sequence[str], encoded: Callable[[str], list[int]]
) -> list[int]:
    """Ids of a frame with its spans filled in; 0 is the question, n the n-th fact or earlier turn."""
    pieces = _MARK.split(frame)
    ids = [] if tokenizer.chat_template else _leading(tokenizer)
    blank = ""
    for place, piece in enumerate(pieces):
        if place % 2:
            ids += encoded(blank + spans[int(piece)])
        else:
            frame_text = piece.rstrip(" ") if place + 1 < len(pieces) else piece
            blank = piece[len(frame_text) :]
            ids += _encode(tokenizer, frame_text)
    return ids


def _frame(tokenizer: Any, facts: int) -> str:
    """The text around the spans, each span as its marked number."""
    content = _content(facts)
    if not tokenizer.chat_template:
        return f"{content}\n\n{_TEXTS.answer}\n" if facts else _TEXTS.plain.format(question=content)
    turn = [{"role": "user", "content": content}]
    rendered: str = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    return rendered


def mark(number: int) -> str:
    """Stands in a frame for the span of that number."""
    return f"{_OPEN}{number}{_CLOSE}"


def _content(facts: int) -> str:
    if not facts:
        return _CONTENT
    marks = list(map(mark, range(1, facts + 1)))
    listed = marks if facts == 1 else [f"{number}. {mark}" for number, mark in enumerate(marks, 1)]
    head, question = f"{_TEXTS.introduction}\n\n{_TEXTS.updated}", f"\n{_TEXTS.question}"
    return "\n".join([head, *listed, question, _CONTENT])


def _encode(tokenizer: Any, text: str, *, plain: bool = False) -> list[int]:
    """Ids of `text` without special tokens; by a fast tokenizer's own engine, whose wrapper costs more.

    `plain` reads what spells a special token as text, where the tokenizer can.
    """
    if not text:
        return []
    engine = getattr(tokenizer, "backend_tokenizer", None)
    if engine is not None and engine.truncation is None and engine.padding is None and not plain:
        engine_ids: list[int] = engine.encode(text, add_special_tokens=False).ids
        return engine_ids
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=plain)["input_ids"]
    if plain and engine is not None:
        engine.encode_special_tokens = False
    return ids


def _leading(tokenizer: Any) -> list[int]:
    """The begin-of-sequence id where the tokenizer puts one."""
    ids: list[int] = tokenizer("")["input_ids"]
    return ids[:1] if ids and ids[0] == tokenizer.bos_token_id else []


def untrusted(tokenizer: Any, text: str) -> list[int]:
    """Ids of `text` as plain text, whatever added tokens it spells.

    A fast tokenizer can read special tokens as text. Else what spells an added token is cut apart before it
    is encoded, which may add blanks at the cuts.
    """
    added = tokenizer.get_added_vocab()
    barred = (set(added.values()) | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}
    ways: list[Callable[[], list[int]]] = [
        lambda: _encode(tokenizer, text, plain=any(token in text for token in added)),
        lambda: _joined(tokenizer, _apart(text, sorted(added))),
        lambda: _joined(tokenizer, list(text)),
    ]
    for encode in ways:
        ids = encode()
        if barred.isdisjoint(ids):
            return ids
    return [number for number in ids if number not in barred]


def _joined(tokenizer: Any, pieces: Sequence[str]) -> list[int]:
    return [number for piece in pieces for number in _encode(tokenizer, piece)]


def _apart(text: str, added: Sequence[str]) -> list[str]:
    """`text` in pieces none of which holds an added token."""
    pieces, start = [], 0
    barred = _any_of(tuple(token for token in added if len(token) > 1))
    while match := barred.search(text, start):
        pieces.append(text[start : match.start() + 1])
        start = match.start() + 1
    return [*pieces, text[start:]]


@lru_cache(8)
def _any_of(tokens: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, tokens)) or r"(?!)")


def build_raw(tokenizer: Any, content: str) -> tuple[int, ...]:
    """Ids of `content` as one user turn, line breaks kept; no budget. For recipes and evaluations."""
    pieces = _MARK.split(_frame(tokenizer, 0))
    before, after = pieces[0], pieces[-1]
    return (*_encode(tokenizer, before), *untrusted(tokenizer, content), *_encode(tokenizer, after))
