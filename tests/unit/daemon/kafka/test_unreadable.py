"""Records that kafka-python cannot read: any header name is read, anything else is named by its place."""

from __future__ import annotations

from typing import Any

import pytest
from kafka import TopicPartition as KafkaPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from raw_header import RawName

from daemon.kafka.client_internals.codecs import BATCH_MAX_BYTES, bound_batches
from daemon.kafka.client_internals.large_batches import SPARE_BYTES, stream_large_batches
from daemon.kafka.client_internals.unreadable import BAD_NAME_HEADER, RecordFault, read_leniently

GOOD = b"good"
NAMES = [b"\xff", b"caf\xe9", b"\xc3", b"\xed\xa0\x80", b"x" * 200 + b"\x80"]
CODECS = [DefaultRecordBatch.CODEC_NONE, DefaultRecordBatch.CODEC_GZIP, DefaultRecordBatch.CODEC_ZSTD]
Headers = list[tuple[str, bytes | None]]


@pytest.fixture(autouse=True)
def _lenient() -> None:
    bound_batches(BATCH_MAX_BYTES)
    stream_large_batches((256 << 10) + SPARE_BYTES)
    read_leniently()


def packed(headers: list[Headers], codec: int = DefaultRecordBatch.CODEC_NONE) -> bytes:
    """One record for each list of headers."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 30,
    )
    for number, record_headers in enumerate(headers):
        builder.append(number, timestamp=7 + number, key=b"k", value=GOOD, headers=record_headers)
    return bytes(builder.build())


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("name", NAMES)
def test_a_record_with_any_header_name_is_read_among_its_neighbours(name: bytes, codec: int) -> None:
    before: Headers = [("plain", b"1")]
    bad: Headers = [("first", None), (RawName(name), b"value"), ("last", b"")]
    records = list(DefaultRecordBatch(packed([before, bad, []], codec)))
    assert [(record.offset, record.timestamp, record.key, record.value) for record in records] == [
        (number, 7 + number, b"k", GOOD) for number in range(3)
    ]
    assert records[0].headers == before
    shown = name.decode("utf-8", "backslashreplace")
    assert records[1].headers == [
        ("first", None),
        (shown, b"value"),
        (BAD_NAME_HEADER, name),
        ("last", b""),
    ]


def test_a_large_batch_that_is_streamed_is_read_so_too() -> None:
    bound_batches(50)
    batch = DefaultRecordBatch(packed([[(RawName(b"\xff"), b"1")], []], DefaultRecordBatch.CODEC_GZIP))
    assert [record.headers for record in batch] == [[("\\xff", b"1"), (BAD_NAME_HEADER, b"\xff")], []]


def test_a_record_that_is_bad_in_another_way_too_is_still_corrupt() -> None:
    body = bytearray(packed([[(RawName(b"\xff"), b"1")]]))
    body[-2] = 0x7E  # the header's value is longer than the record now
    with pytest.raises(CorruptRecordError):
        list(DefaultRecordBatch(bytes(body)))


def reading(data: bytes, fetch_offset: int = 0) -> Any:
    """The client's own reader of what one fetch brought."""
    return Fetcher.PartitionRecords(fetch_offset, KafkaPartition("t", 3), MemoryRecords(data))


def with_damaged_second_record() -> bytes:
    """The second record's length says more than it has; the checksum is that of these bytes."""
    data = bytearray(packed([[], [], []]))
    size = (len(data) - DefaultRecordBatch.HEADER_STRUCT.size) // 3
    data[DefaultRecordBatch.HEADER_STRUCT.size + size] += 2
    return bytes(data)


@pytest.mark.parametrize(("fetch_offset", "named"), [(0, 1), (1, 1), (2, 2)])
def test_the_fault_names_the_record_and_what_comes_before_it_is_delivered(
    monkeypatch: pytest.MonkeyPatch, fetch_offset: int, named: int
) -> None:
    monkeypatch.setattr(DefaultRecordBatch, "validate_crc", lambda _: True)
    records = reading(with_damaged_second_record(), fetch_offset)
    if fetch_offset == 0:
        assert [record.offset for record in records.take(10)] == [0]
    with pytest.raises(RecordFault) as caught:
        records.take(10)
    assert (caught.value.partition, caught.value.offset, caught.value.code) == (3, named, "corrupt_record")


def test_a_checksum_that_is_wrong_is_named_too() -> None:
    data = bytearray(packed([[], []]))
    data[-1] ^= 1
    with pytest.raises(RecordFault, match="crc") as caught:
        reading(bytes(data)).take(10)
    assert (caught.value.offset, caught.value.code) == (0, "corrupt_record")
