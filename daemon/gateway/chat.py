"""What a chat request asks of the daemon: its question, and which of OpenAI's parameters can be honoured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from daemon.gateway.errors import INVALID, UNSUPPORTED, HttpError
from daemon.gateway.options import LteOptions

# Values that change nothing; any other value of these asks for something that is not done here.
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "stop": ([], ""),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
}


class ChatMessage(BaseModel):
    """One turn. `content`: text, or parts of which all are text."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")
    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """OpenAI's body. Parameters that are not named here are refused or ignored by `ignored_parameters`."""

    model_config = ConfigDict(extra="allow")
    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, lt=1 << 31)
    max_completion_tokens: int | None = Field(default=None, ge=1, lt=1 << 31)
    lte: LteOptions = Field(default_factory=LteOptions)

    @property
    def max_new_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


def question_of(messages: list[ChatMessage], most: int) -> str:
    """The text of the last user turn: what is asked. Raises `HttpError`."""
    if len(messages) > most:
        raise HttpError(INVALID, f"{len(messages)} messages, at most {most} are taken", param="messages")
    for message in reversed(messages):
        if message.role == "user":
            return _text(message.content)
    raise HttpError(INVALID, "no message has the role user: its text is the question", param="messages")


def ignored_parameters(request: ChatRequest) -> list[str]:
    """Names of parameters without effect: answers are greedy, and nothing is stored.

    Raises `HttpError` for a parameter whose effect the caller would miss.
    """
    ignored = []
    for name, value in (request.model_extra or {}).items():
        if value is None or value in _HARMLESS.get(name, ()):
            continue
        if name in _HARMLESS:
            raise HttpError(UNSUPPORTED, f"{name} is not supported by this model: leave it out", param=name)
        ignored.append(name)
    return sorted(ignored)


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return "\n".join(map(_part_text, content))
    return content or ""


def _part_text(part: Mapping[str, Any]) -> str:
    text = part.get("text")
    if part.get("type") != "text" or not isinstance(text, str):
        raise HttpError(UNSUPPORTED, "a message may have parts of type text alone", param="messages")
    return text
