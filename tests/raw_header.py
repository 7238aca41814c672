"""A Kafka header whose name is any bytes: kafka-python itself sends text alone."""

from __future__ import annotations


class RawName(str):
    """A header name that is sent as `raw`, whatever the encoding."""

    raw: bytes

    def __new__(cls, raw: bytes) -> RawName:
        name = super().__new__(cls, raw.decode("latin-1"))
        name.raw = raw
        return name

    def encode(self, *_: object, **__: object) -> bytes:
        return self.raw
