"""Records that kafka-python 3.0 cannot read: read anyway where that is possible, else named by position.

Kafka lets a header name be any bytes; the client takes UTF-8 alone and stops at such a record for good. And
when it stops it does not say where, and a further poll of the same client spins for ever.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError, KafkaError, UnsupportedCodecError
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint

from daemon.kafka.client_internals.codecs import BatchTooLarge

BAD_NAME_HEADER = "lte-bad-header-name"
"""Header that is added for each header name that is not UTF-8; its value is the name as it came."""

_strict_record = DefaultRecordBatch._read_msg
_unpack = Fetcher.PartitionRecords._unpack_records
_parse = Fetcher._parse_fetched_data


class RecordFault(KafkaError):  # type: ignore[misc]
    """The client cannot read the record at `offset`; the reason is its `__cause__`. Drop the client."""

    def __init__(self, partition: int, offset: int, cause: Exception) -> None:
        super().__init__(str(cause) or type(cause).__name__)
        self.partition, self.offset = partition, offset

    @property
    def code(self) -> str:
        """Stable name of the reason."""
        if isinstance(self.__cause__, UnsupportedCodecError):
            return "unsupported_codec"
        return "batch_too_large" if isinstance(self.__cause__, BatchTooLarge) else "corrupt_record"


def read_leniently() -> None:
    """Have every consumer of this process read any header name, and name the place of what it cannot read."""
    DefaultRecordBatch._read_msg = _record
    Fetcher.PartitionRecords._unpack_records = _located_records
    Fetcher._parse_fetched_data = _located_batches


def _record(batch: Any) -> Any:
    start = batch._pos
    try:
        return _strict_record(batch)
    except UnicodeDecodeError:
        batch._pos = start
        return _with_any_names(batch)


def _with_any_names(batch: Any) -> Any:
    """The record at the batch's position, in the format of `DefaultRecordBatch._read_msg`."""
    buffer = batch._buffer
    length, start = decode_varint(buffer, batch._pos)
    _, pos = decode_varint(buffer, start)  # attributes: none are in use
    delta, pos = decode_varint(buffer, pos)
    offset, pos = decode_varint(buffer, pos)
    key, pos = _field(buffer, pos)
    value, pos = _field(buffer, pos)
    headers, pos = _headers(buffer, pos)
    if pos - start != length:
        raise CorruptRecordError(f"a record of {length} bytes holds fields of {pos - start} bytes")
    batch._pos = pos
    timestamp, kind = timestamp_of(batch, delta), batch.timestamp_type
    return DefaultRecord(length, batch.base_offset + offset, timestamp, kind, key, value, headers)


def timestamp_of(batch: Any, delta: int) -> int:
    """Milliseconds of a record that is `delta` behind the batch's first."""
    logged = batch.timestamp_type == batch.LOG_APPEND_TIME
    return int(batch.max_timestamp if logged else batch.first_timestamp + delta)


def _headers(buffer: Any, pos: int) -> tuple[list[tuple[str, bytes | None]], int]:
    count, pos = decode_varint(buffer, pos)
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        name, pos = _field(buffer, pos)
        value, pos = _field(buffer, pos)
        headers += _readable(name or b"", value)
    return headers, pos


def _readable(name: bytes, value: bytes | None) -> list[tuple[str, bytes | None]]:
    try:
        return [(name.decode(), value)]
    except UnicodeDecodeError:
        return [(name.decode(errors="backslashreplace"), value), (BAD_NAME_HEADER, name)]


def _field(buffer: Any, pos: int) -> tuple[bytes | None, int]:
    """Bytes behind their length; None for a negative length."""
    length, pos = decode_varint(buffer, pos)
    if length < 0:
        return None, pos
    if pos + length > len(buffer):
        raise CorruptRecordError("a record ends within a field")
    return bytes(buffer[pos : pos + length]), pos + length


def _located_records(records: Any, partition: Any, *more: Any) -> Iterator[Any]:
    try:
        yield from _unpack(records, partition, *more)
    except Exception as error:
        # Of a batch that was entered in its middle, records before the place of entry are passed again.
        offset = max(records.fetch_offset, records.next_fetch_offset)
        raise RecordFault(partition.partition, offset, error) from error


def _located_batches(fetcher: Any, fetch: Any) -> Any:
    try:
        return _parse(fetcher, fetch)
    except (CorruptRecordError, ValueError, LookupError, struct.error) as error:
        raise RecordFault(fetch.topic_partition.partition, fetch.fetched_offset, error) from error
