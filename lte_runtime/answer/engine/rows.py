"""One request under way: its tokens, its text, and why it ended. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from lte_runtime.types import GenerateRequest

Decode = Callable[[Sequence[int]], str]

# What a tokenizer gives for the first bytes of a character whose last bytes are still to come.
REPLACEMENT = "\ufffd"


def first_line(text: str) -> tuple[str, bool]:
    """The first line that holds anything, stripped, and whether it is complete."""
    line, newline, _ = text.lstrip().partition("\n")
    return line.rstrip(), bool(newline)


class GenerationRow:
    """Collects tokens until end of sequence, a line break, the limit, the deadline or a cancellation.

    A row that may have `several_lines` does not end at a line break. The text never ends in half a
    character; `on_text` gets only what later tokens cannot change: no trailing space either.
    """

    def __init__(
        self,
        request: GenerateRequest,
        decode: Decode,
        eos: Collection[int],
        *,
        several_lines: bool = False,
    ) -> None:
        self.request = request
        self.tokens: list[int] = []
        self.text = ""
        self.finish = ""
        self.abandoned = False
        self._decode = decode
        self._eos = eos
        self._several_lines = several_lines
        self._sent = 0

    @property
    def copied(self) -> int | None:
        """The next token of the value that the answer has begun to spell; None for no or several ones."""
        tokens = tuple(self.tokens)
        longer = (value for value in self.request.values if len(value) > len(tokens) > 0)
        following = {value[len(tokens)] for value in longer if value[: len(tokens)] == tokens}
        return following.pop() if len(following) == 1 else None

    def push(self, token: int) -> None:
        """Takes the next token; sets `finish` when it is the last one."""
        self.tokens.append(token)
        if token in self._eos:
            self.finish = "stop"
        else:
            self._read()
        if not self.finish and len(self.tokens) >= self.request.max_new_tokens:
            self.finish = "length"
        self._send()

    def interrupt(self, now: float) -> None:
        """Ends the row when its caller has gone or its deadline (monotonic seconds) has passed."""
        if self.finish:
            return
        if self.abandoned or self.request.cancelled():
            self.finish = "cancelled"
        elif self.request.deadline is not None and now >= self.request.deadline:
            self.finish = "deadline"
        if self.finish:
            self._send()

    def _read(self) -> None:
        text = self._decode(self.tokens)
        line, complete = (text.strip(), False) if self._several_lines else first_line(text)
        self.text = line.rstrip(REPLACEMENT).rstrip()
        if complete and self.text:
            self.finish = "stop"

    def _send(self) -> None:
        if self.request.on_text and len(self.text) > self._sent:
            piece, self._sent = self.text[self._sent :], len(self.text)
            self.request.on_text(piece)
