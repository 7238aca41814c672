"""Prompts of conversations: the base model's chat template over the earlier turns and the question.

All turns come from outside, also those that are said to be the model's or the system's: they are tokenised as
plain text, as questions are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from typing import Any

from lte_runtime.answer.prompt import Prompt, Spans, build, mark, one_line, render
from lte_runtime.errors import BadRequest
from lte_runtime.types import Turn, TurnRole

READ_CHARS = 65_536
"""Characters of the earlier turns that are read for one prompt, the last ones: several times what small
models have room for, and quick to tokenise."""
READ_TURNS = 256
"""Earlier turns that are read for one prompt, the last ones."""
_LABELS = {TurnRole.USER: "Question: ", TurnRole.ASSISTANT: "Answer: ", TurnRole.SYSTEM: ""}


@dataclass(frozen=True, slots=True)
class _Block:
    """Neighbouring turns of one role as one, for templates that want roles to alternate."""

    role: TurnRole
    text: str
    turns: int


def build_conversation(tokenizer: Any, question: str, earlier: Sequence[Turn], *, max_tokens: int) -> Prompt:
    """The prompt of a question behind the earlier turns, of at most `max_tokens` ids.

    Where there is no room, the oldest turns are left out, and system turns, which stand first, last of all.
    Raises `BadRequest` as `prompt.build` does.
    """
    if not question.strip():
        raise BadRequest("the question is empty")
    encoded, question_line = Spans(tokenizer), one_line(question)
    system, spoken = _blocks(_read(earlier))
    # A conversation begins with a user's turn; the last start is the question alone.
    starts = [at for at, block in enumerate(spoken) if block.role is TurnRole.USER]
    starts.append(len(spoken))
    fitting = len(spoken) - _fitting(spoken, encoded, max_tokens)
    starts = [at for at in starts if at >= fitting]

    @cache
    def ids(start: int) -> list[int]:
        blocks = [*system, *spoken[start:]]
        texts = [question_line, *(block.text for block in blocks)]
        if not tokenizer.chat_template:
            texts = list(map(one_line, texts))
        return render(tokenizer, _frame(tokenizer, [block.role for block in blocks]), texts, encoded)

    place = bisect_left(starts, True, key=lambda start: len(ids(start)) <= max_tokens)
    if place == len(starts) and system:
        others = [turn for turn in earlier if turn.role is not TurnRole.SYSTEM]
        prompt = build_conversation(tokenizer, question, others, max_tokens=max_tokens)
        return replace(prompt, dropped_turns=prompt.dropped_turns + len(earlier) - len(others))
    if place == len(starts) or (not system and starts[place] == len(spoken)):
        return replace(build(tokenizer, question, max_tokens=max_tokens), dropped_turns=len(earlier))
    used = sum(block.turns for block in (*system, *spoken[starts[place] :]))
    return Prompt(tuple(ids(starts[place])), 0, dropped_turns=len(earlier) - used)


def _read(earlier: Sequence[Turn]) -> list[Turn]:
    """The last turns, see `READ_CHARS` and `READ_TURNS`; of a longer one nothing is read."""
    turns, chars = list[Turn](), 0
    for turn in reversed(earlier[-READ_TURNS:]):
        chars += len(turn.text)
        if chars > READ_CHARS:
            break
        turns.append(turn)
    return turns[::-1]


def _blocks(turns: Sequence[Turn]) -> tuple[list[_Block], list[_Block]]:
    """The system's turns as one block, if any, and the others by turns."""
    system = [turn for turn in turns if turn.role is TurnRole.SYSTEM]
    spoken = [turn for turn in turns if turn.role is not TurnRole.SYSTEM]
    alternating = [_block(role, list(group)) for role, group in groupby(spoken, key=lambda turn: turn.role)]
    return [_block(TurnRole.SYSTEM, system)] if system else [], alternating


def _block(role: TurnRole, turns: Sequence[Turn]) -> _Block:
    return _Block(role, "\n\n".join(turn.text for turn in turns), len(turns))


def _fitting(blocks: Sequence[_Block], encoded: Spans, max_tokens: int) -> int:
    """How many of the last blocks alone take `max_tokens` at most."""
    return len(encoded.fitting([block.text for block in reversed(blocks)], max_tokens))


def _frame(tokenizer: Any, roles: Sequence[TurnRole]) -> str:
    """The text around the turns, each as its mark, and around the question."""
    if not tokenizer.chat_template:
        lines = [f"{_LABELS[role]}{mark(number)}" for number, role in enumerate(roles, 1)]
        return "\n".join([*lines, f"Question: {mark(0)}", "Answer:"])
    turns = [{"role": role.value, "content": mark(number)} for number, role in enumerate(roles, 1)]
    question = mark(0)
    if roles[-1:] == [TurnRole.USER]:  # was not answered: some templates take no two turns of one role
        question = f"{turns.pop()['content']}\n\n{question}"
    return _templated(tokenizer, [*turns, {"role": "user", "content": question}])


def _templated(tokenizer: Any, turns: list[dict[str, str]]) -> str:
    """By the chat template; one that knows no system turn gets its text at the head of the user's first."""
    from jinja2 import TemplateError

    try:
        rendered: str = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    except TemplateError:
        if turns[0]["role"] != TurnRole.SYSTEM:
            raise
        system, first, *others = turns
        first = {**first, "content": f"{system['content']}\n\n{first['content']}"}
        return _templated(tokenizer, [first, *others])
    return rendered
