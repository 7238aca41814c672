"""What every baseline offers, and the values that it takes and gives. Knows no model library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class EditRequest:
    """`prompt` is to be answered with `target`; `subject` is what it is about, as `prompt` spells it."""

    subject: str
    prompt: str
    target: str

    @property
    def statement(self) -> str:
        """The edit as one line of text."""
        return f"{self.prompt} {self.target}"


@dataclass(frozen=True, slots=True)
class Forced:
    """A target read under teacher forcing: which of its tokens are the most likely one, and their likelihood.

    `logprob` is the sum over the tokens, in nats; the end token is not counted.
    """

    right: tuple[bool, ...]
    logprob: float


class Editor(Protocol):
    """A method of knowledge editing on one model that it has for itself; for one thread.

    `edit` applies a batch; called again it goes on from there (sequential editing). `undo` takes back all
    edits since the start. Prompts are plain questions: what the method puts around them is its own affair.
    """

    def edit(self, requests: Sequence[EditRequest]) -> None: ...

    def answer(self, prompts: Sequence[str], *, max_new_tokens: int = 32) -> list[str]:
        """The first line of each greedy answer. Raises `BadRequest` for a prompt that does not fit."""
        ...

    def forced(self, pairs: Sequence[tuple[str, str]]) -> list[Forced]:
        """Each (prompt, target) read under teacher forcing."""
        ...

    def undo(self) -> None:
        """The model as it was before the first edit, bit for bit."""
        ...
