"""No batch unpacks to more memory than is allowed, whatever its codec."""

from __future__ import annotations

import gzip
import random
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lz4.frame
import pytest
import snappy
import zstandard
from kafka.errors import CorruptRecordError
from kafka.record import default_records
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from daemon.kafka.client_internals.codecs import (
    BATCH_MAX_BYTES,
    DECODERS,
    BatchTooLarge,
    bound_batches,
    bounded,
)
from daemon.kafka.client_internals.large_batches import (
    CUT_HEADER,
    SPARE_BYTES,
    stream_large_batches,
    streamed,
)

Pack = Callable[[bytes], bytes]
PACKERS: dict[str, Pack] = {
    "gzip_decode": gzip.compress,
    "lz4_decode": lz4.frame.compress,
    "snappy_decode": snappy.compress,
    "zstd_decode": zstandard.ZstdCompressor().compress,
}
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _limit_restored() -> Iterator[None]:
    yield
    bound_batches(BATCH_MAX_BYTES)
    stream_large_batches((256 << 10) + SPARE_BYTES)


@pytest.mark.parametrize("name", DECODERS)
def test_what_fits_comes_whole_and_what_does_not_is_refused(name: str) -> None:
    data = b"fact" * 1000
    packed = PACKERS[name](data)
    assert bounded(DECODERS[name], len(data), memoryview(packed).tobytes()) == data
    with pytest.raises(BatchTooLarge, match=r"kafka\.batch_max_bytes"):
        bounded(DECODERS[name], len(data) - 1, packed)


@pytest.mark.parametrize("name", ["gzip_decode", "lz4_decode", "zstd_decode"])
def test_streams_in_several_parts_are_read_whole_and_bounded(name: str) -> None:
    packed = PACKERS[name](b"a" * 600) + PACKERS[name](b"b" * 600)
    assert bounded(DECODERS[name], 1200, packed) == b"a" * 600 + b"b" * 600
    with pytest.raises(BatchTooLarge):
        bounded(DECODERS[name], 1199, packed)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("data", [b"no such stream at all, whatever the codec", b"\xff" * 40])
def test_what_is_no_stream_is_corrupt(name: str, data: bytes) -> None:
    with pytest.raises(CorruptRecordError):
        bounded(DECODERS[name], MIB, data)


def batch(value: bytes, codec: int) -> Any:
    return packed([(None, value, [])], codec)


Rows = Sequence[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]]


def packed(rows: Rows, codec: int) -> Any:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 30,
    )
    for number, (key, value, headers) in enumerate(rows):
        builder.append(number, timestamp=1 + number, key=key, value=value, headers=headers)
    return DefaultRecordBatch(bytes(builder.build()))


STREAMED = [DefaultRecordBatch.CODEC_GZIP, DefaultRecordBatch.CODEC_LZ4, DefaultRecordBatch.CODEC_ZSTD]


def told(record: Any) -> tuple[Any, ...]:
    return record.offset, record.timestamp, record.key, record.value, record.headers


@pytest.mark.parametrize("codec", STREAMED)
def test_a_bomb_in_a_batch_costs_little_memory(codec: int) -> None:
    bomb = batch(bytes(64 * MIB), codec)
    bound_batches(2 * MIB)
    stream_large_batches(MIB)
    tracemalloc.start()
    (record,) = bomb
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * MIB
    assert MIB - SPARE_BYTES < len(record.value) <= MIB
    assert int(dict(record.headers)[CUT_HEADER]) > 64 * MIB
    honest = batch(b"x" * MIB, DefaultRecordBatch.CODEC_GZIP)
    assert next(iter(honest)).value == b"x" * MIB


@pytest.mark.parametrize("codec", STREAMED)
def test_a_stream_gives_the_records_of_the_whole_batch(codec: int) -> None:
    rows: Rows = [
        (b"key", b"x" * 700_000, [("h", b"1")]),
        (None, b"y", []),
        (b"", None, []),
        (b"k" * 99, b"z", []),
    ]
    whole = [told(record) for record in packed(rows, codec)]
    bound_batches(MIB // 2)
    stream_large_batches(MIB)
    assert [told(record) for record in packed(rows, codec)] == whole
    stream_large_batches(MIB // 4)
    cut, *rest = packed(rows, codec)
    assert [told(record) for record in rest] == whole[1:]
    assert (cut.offset, cut.timestamp, cut.key) == whole[0][:3]
    assert whole[0][3].startswith(cut.value)


@pytest.mark.parametrize("key", [b"", b"k" * 100, b"k" * 100_000, b"k" * MIB])
def test_of_a_record_cut_short_more_stays_than_an_event_may_have(key: bytes) -> None:
    """Else the beginning of a long value could pass for an event, as '{...}' before many blanks would."""
    event_max = MIB // 4
    bound_batches(MIB)
    stream_large_batches(event_max + SPARE_BYTES)
    (cut,) = packed([(key, b"{}" + b" " * 2 * MIB, [])], DefaultRecordBatch.CODEC_ZSTD)
    assert len(cut.value) > event_max


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_stream_that_ends_early_is_corrupt(share: float) -> None:
    bound_batches(MIB)
    stream_large_batches(MIB)
    value = bytes(random.Random(1).choices(range(16), k=MIB))
    made = packed([(None, value, [])] * 2, DefaultRecordBatch.CODEC_GZIP)
    made._buffer = made._buffer[: int(len(made._buffer) * share)]
    with pytest.raises(CorruptRecordError):
        list(streamed(made, MIB))


def test_every_decoder_of_the_client_is_bounded() -> None:
    bound_batches(MIB)
    theirs = {name for name in vars(default_records) if name.endswith("_decode")}
    assert theirs == set(DECODERS)
