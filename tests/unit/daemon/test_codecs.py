"""No batch unpacks to more memory than is allowed, whatever its codec."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import lz4.frame
import pytest
import snappy
import zstandard
from kafka.errors import CorruptRecordError
from kafka.record import default_records
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from daemon.kafka.codecs import BATCH_MAX_BYTES, DECODERS, BatchTooLarge, bound_batches, bounded

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
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 30,
    )
    builder.append(0, timestamp=1, key=None, value=value, headers=[])
    return DefaultRecordBatch(bytes(builder.build()))


def test_a_bomb_in_a_batch_costs_little_memory() -> None:
    bomb = batch(bytes(128 * MIB), DefaultRecordBatch.CODEC_ZSTD)
    bound_batches(2 * MIB)
    tracemalloc.start()
    with pytest.raises(BatchTooLarge):
        next(iter(bomb))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * MIB
    honest = batch(b"x" * MIB, DefaultRecordBatch.CODEC_GZIP)
    assert next(iter(honest)).value == b"x" * MIB


def test_every_decoder_of_the_client_is_bounded() -> None:
    bound_batches(MIB)
    theirs = {name for name in vars(default_records) if name.endswith("_decode")}
    assert theirs == set(DECODERS)
