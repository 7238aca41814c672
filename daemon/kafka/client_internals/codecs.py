"""Decompression with a bound: a small batch must not unpack to more memory than the machine has.

kafka-python unpacks a whole batch at once and offers no limit, so its decoders are exchanged for these. A
broker passes such a batch on: it checks the compressed size alone.
"""

from __future__ import annotations

import functools
import gzip
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, cast

import lz4.frame
import snappy
import zstandard
from kafka.codec import snappy_decode
from kafka.errors import CorruptRecordError, KafkaError
from kafka.record import default_records, legacy_records

BATCH_MAX_BYTES = 64 << 20
Decoder = Callable[[Any, int], bytes]
BROKEN = (
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
    zlib.error,
    zstandard.ZstdError,
    snappy.UncompressError,
)


class BatchTooLarge(KafkaError):  # type: ignore[misc]
    """A batch that would unpack to more bytes than allowed."""


def gzip_stream(data: Any) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=io.BytesIO(data)))


def lz4_stream(data: Any) -> BinaryIO:
    return cast(BinaryIO, lz4.frame.LZ4FrameFile(io.BytesIO(data)))


def zstd_stream(data: Any) -> BinaryIO:
    reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True)
    return cast(BinaryIO, reader)


def _unstream(opened: Callable[[Any], BinaryIO], data: Any, most: int) -> bytes:
    with opened(data) as stream:
        return bytes(stream.read(most))


def unsnappy(data: Any, most: int) -> bytes:  # noqa: ARG001
    """Snappy cannot unpack to more than about 21 times its size: the limit of a fetch bounds it."""
    return bytes(snappy_decode(data))


DECODERS: dict[str, Decoder] = {
    "gzip_decode": functools.partial(_unstream, gzip_stream),
    "lz4_decode": functools.partial(_unstream, lz4_stream),
    "snappy_decode": unsnappy,
    "zstd_decode": functools.partial(_unstream, zstd_stream),
}


def bounded(decode: Decoder, most: int, data: Any) -> bytes:
    """What the data unpack to; raises `BatchTooLarge`, or `CorruptRecordError` for what is no such stream."""
    try:
        unpacked = decode(data, most + 1)
    except BROKEN as error:
        raise CorruptRecordError(f"a batch cannot be unpacked: {error}") from error
    if len(unpacked) > most:
        raise BatchTooLarge(
            f"a batch of {len(data)} bytes unpacks to more than {most} (kafka.batch_max_bytes)"
        )
    return unpacked


def bound_batches(most: int) -> None:
    """Have every consumer of this process refuse a batch that unpacks to more than `most` bytes."""
    for name, decode in DECODERS.items():
        for module in (default_records, legacy_records):
            if hasattr(module, name):
                setattr(module, name, functools.partial(bounded, decode, most))
