"""Taking secrets out of what people and logs see."""

from __future__ import annotations

import re

HIDDEN = "***"
# A secret may hold any character, "/" and "@" too: everything up to the last "@" goes.
_CREDENTIALS = re.compile(r"(?<=://)\S*@|(?<![^,])[^\s,/@:]+:(?!//)[^\s,@]*@")
_QUERY = re.compile(r"(://[^\s?]*)\?\S+")


def url(text: str) -> str:
    """A URL or host:port without its user, password and query, where tokens stand."""
    return _QUERY.sub(rf"\1?{HIDDEN}", _CREDENTIALS.sub(f"{HIDDEN}@", text))


def url_in(message: str, text: str) -> str:
    """A message of a library that may quote the URL `text`."""
    return message.replace(text, url(text))
