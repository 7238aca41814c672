"""Batches that unpack to more than may be held: read record by record out of the stream.

kafka-python 3.0 unpacks a whole batch before its first record. Here a batch that is too large for that is
unpacked as it is read: good records in it are records as any other, and of one that is itself too long only
the beginning is kept, which is enough to put it aside.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint

from daemon.kafka.client_internals.codecs import BROKEN, BatchTooLarge, gzip_stream, lz4_stream, zstd_stream
from daemon.kafka.client_internals.unreadable import timestamp_of

KEY_MAX_BYTES = 32 << 10
"""A longer key of a record that is cut short is not kept."""
SPARE_BYTES = 64 << 10
"""What is kept of a record beside the bytes that an event's value may have."""
SKIP_BYTES = 1 << 20
VARINT_MAX_BYTES = 5
CUT_HEADER = "lte-record-bytes"
"""Header of a record of which only the beginning was kept: its whole length."""

_iterate_unpacked: Callable[[Any], Iterator[Any]] = DefaultRecordBatch.__iter__


STREAMS: dict[int, Callable[[Any], BinaryIO]] = {
    DefaultRecordBatch.CODEC_GZIP: gzip_stream,
    DefaultRecordBatch.CODEC_LZ4: lz4_stream,
    DefaultRecordBatch.CODEC_ZSTD: zstd_stream,
}


def stream_large_batches(most: int) -> None:
    """Have every consumer of this process read too large batches as streams, `most` bytes of a record."""
    DefaultRecordBatch.__iter__ = functools.partialmethod(_records, most)


def _records(batch: Any, most: int) -> Iterator[Any]:
    try:
        return _iterate_unpacked(batch)
    except BatchTooLarge:
        if batch.compression_type not in STREAMS:  # snappy has no streams, and is bounded by what is fetched
            raise
        return streamed(batch, most)


def streamed(batch: Any, most: int) -> Iterator[Any]:
    """The records of a packed batch of the present format, at most `most` bytes of each in memory."""
    data = memoryview(batch._buffer)[batch._pos :]
    try:
        with STREAMS[batch.compression_type](data) as stream:
            for _ in range(batch._num_records):
                yield _record(batch, stream, most)
    except BROKEN as error:
        raise CorruptRecordError(f"a batch cannot be unpacked: {error}") from error


def _record(batch: Any, stream: BinaryIO, most: int) -> Any:
    head = _varint(stream)
    length, _ = decode_varint(head, 0)
    beginning = stream.read(min(length, most))
    if len(beginning) < min(length, most):
        raise CorruptRecordError("a batch ends within a record")
    if length <= most:
        batch._buffer, batch._pos = bytearray(head + beginning), 0
        return batch._read_msg()
    _skip(stream, length - most)
    return _cut_record(batch, beginning, length)


def _varint(stream: BinaryIO) -> bytes:
    head = b""
    while len(head) < VARINT_MAX_BYTES:
        byte = stream.read(1)
        if not byte:
            raise CorruptRecordError("a batch holds fewer records than it says")
        head += byte
        if byte[0] < 0x80:
            return head
    raise CorruptRecordError("a record's length is no varint")


def _skip(stream: BinaryIO, length: int) -> None:
    while length > 0:
        passed = len(stream.read(min(length, SKIP_BYTES)))
        if not passed:
            raise CorruptRecordError("a batch ends within a record")
        length -= passed


def _cut_record(batch: Any, beginning: bytes, length: int) -> Any:
    """A record cut short, with a header that says so. Its value stays longer than an event may be."""
    _, pos = decode_varint(beginning, 0)
    delta, pos = decode_varint(beginning, pos)
    offset, pos = decode_varint(beginning, pos)
    key_length, pos = decode_varint(beginning, pos)
    key = None
    if 0 < key_length <= KEY_MAX_BYTES:
        key, pos = beginning[pos : pos + key_length], pos + key_length
    if key_length <= KEY_MAX_BYTES:
        _, pos = decode_varint(beginning, pos)
    headers = [(CUT_HEADER, str(length).encode())]
    timestamp, kind = timestamp_of(batch, delta), batch.timestamp_type
    return DefaultRecord(length, batch.base_offset + offset, timestamp, kind, key, beginning[pos:], headers)
