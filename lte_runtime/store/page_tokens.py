"""Page tokens: the store's row of the last edit of a page, opaque to clients."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib

_TOKEN = struct.Struct(">qI")  # the row and a checksum, which tells a token from an edit's id
_SALT = "lte page token 1"


def token(row: int) -> str:
    """16 characters that name a row."""
    return base64.urlsafe_b64encode(_TOKEN.pack(row, _checksum(row))).decode()


def row_of(text: str) -> int | None:
    """The row that a token names; None for a text that is no token."""
    try:
        row, checksum = _TOKEN.unpack(base64.b64decode(text.encode(), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, struct.error):
        return None
    return int(row) if checksum == _checksum(row) else None


def _checksum(row: int) -> int:
    return zlib.crc32(f"{_SALT} {row}".encode())
