"""Tokens of signed-in browsers, in memory alone: a browser holds the name of its session, never the token."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass

# One browser needs one; where more sign in, the oldest has to do it again.
MOST_SESSIONS = 256
LIFETIME_S = 12 * 3600.0
LONGEST_TOKEN = 4096
_ID_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Session:
    token: str
    until_s: float


class Sessions:
    """Not thread-safe: one event loop uses it. Times are seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def open(self, token: str, now_s: float) -> str:
        """Remember a token; returns the session's id for the cookie."""
        session_id = secrets.token_urlsafe(_ID_BYTES)
        self._sessions[session_id] = _Session(token, now_s + LIFETIME_S)
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return session_id

    def token(self, session_id: str | None, now_s: float) -> str | None:
        """The token of a session; None for one that ended or never was."""
        session = self._sessions.get(session_id or "")
        if session is None:
            return None
        if session.until_s <= now_s:
            del self._sessions[session_id or ""]
            return None
        return session.token

    def close(self, session_id: str | None) -> None:
        """Forget a session; harmless for one that is not there."""
        self._sessions.pop(session_id or "", None)
