"""What a batch unpacks to is bounded, and everything within the bound is as aiokafka has it."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
from aiokafka import codec
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from confluent_kafka import Producer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infra.kafka.cluster import Broker
from schemas.codec import decode, encode
from schemas.records import DeadLetter, InjectedMetric, Reason
from streams.app import bound_unpacking
from streams.unpacking import BATCH_BYTES_MAX, DECODERS, FETCH_BYTES_MAX, Batches, BeyondBoundError, TooLarge
from tests.pipeline import Pipeline, say

XERIAL: Final = b"\x82SNAPPY\x00" + bytes(8)
ENCODERS: Final = {
    "gzip": codec.gzip_encode,
    "snappy": codec.snappy_encode,
    "lz4": codec.lz4_encode,
    "zstd": codec.zstd_encode,
}


def raw_snappy(payload: bytes) -> bytes:
    """As librdkafka writes it."""
    return bytes(codec.snappy_encode(payload, xerial_compatible=False))


@pytest.mark.parametrize("name", ENCODERS)
@given(
    payload=st.binary(max_size=300)
    | st.builds(lambda b, n: b * n, st.binary(min_size=1, max_size=9), st.integers(0, 300_000))
)
def test_what_is_within_the_bound_is_unpacked_as_it_was(name: str, payload: bytes) -> None:
    decoder = DECODERS[f"{name}_decode"]
    assert decoder(memoryview(ENCODERS[name](payload))) == payload
    if name == "snappy":
        assert decoder(raw_snappy(payload)) == payload


@pytest.mark.parametrize("encode_", [*ENCODERS.values(), raw_snappy])
def test_to_the_byte(encode_: Any) -> None:
    decoder = DECODERS[f"{encode_.__name__.replace('raw_snappy', 'snappy_encode').removesuffix('_encode')}_decode"]
    assert len(decoder(encode_(bytes(BATCH_BYTES_MAX)))) == BATCH_BYTES_MAX
    with pytest.raises(BeyondBoundError):
        decoder(encode_(bytes(BATCH_BYTES_MAX + 1)))


@pytest.mark.parametrize("name", DECODERS)
@given(payload=st.binary(max_size=100) | st.builds(bytes.__add__, st.just(XERIAL), st.binary(max_size=40)))
@example(payload=XERIAL + bytes(4))
@settings(max_examples=20, deadline=None)
def test_whatever_the_bytes_are_it_is_told_in_one_way(name: str, payload: bytes) -> None:
    with suppress(BeyondBoundError):
        DECODERS[name](payload)


def packed(base_offset: int, values: list[bytes], compression: int) -> bytes:
    """A batch as a broker gives it."""
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 1 << 40)
    for number, value in enumerate(values):
        builder.append(number, 1000 + number, b"key", value, [])
    built = bytearray(builder.build())
    built[:8] = base_offset.to_bytes(8)  # not in what the checksum is of
    return bytes(built)


@pytest.mark.parametrize("compression", [0, 1, 2, 3, 4])
def test_a_batch_beyond_the_bound_is_one_record_and_those_around_it_are_as_they_were(compression: int) -> None:
    bound_unpacking()
    bomb = [b"a", bytes(BATCH_BYTES_MAX), b"b"] if compression else [b"not compressed"]
    fetched = packed(5, [b"x", b"y"], compression) + packed(7, bomb, compression) + packed(10, [b"z"], compression)
    batches, found = Batches(MemoryRecords(fetched)), []
    while batches.has_next():
        batch: Any = batches.next_batch()
        assert batch.validate_crc()
        found.append(([(r.offset, r.value) for r in batch], batch.next_offset))
    assert found[0] == ([(5, b"x"), (6, b"y")], 7)
    assert found[2] == ([(10, b"z")], 11)
    if not compression:
        return
    ((offset, value),), following = found[1]
    assert (offset, following) == (9, 10), (
        "of the last, so that whoever has read some of the batch is not shown it again"
    )
    assert isinstance(value, TooLarge)
    assert value.what.startswith("the batch of offsets 7 to 9 cannot be unpacked to")


def test_of_a_fetch_no_more_is_unpacked_than_its_bound_and_a_batch() -> None:
    bound_unpacking()
    size = BATCH_BYTES_MAX - 100
    batches = Batches(MemoryRecords(b"".join(packed(n, [bytes(size)], 4) for n in range(9))))
    offsets = []
    while batches.has_next():
        offsets += [record.offset for record in batches.next_batch()]
    assert offsets == [0, 1], "the others are fetched again"
    assert FETCH_BYTES_MAX < batches.unpacked_bytes <= FETCH_BYTES_MAX + BATCH_BYTES_MAX


@pytest.mark.kafka
def test_bombs_of_gigabytes_cost_intake_a_bounded_memory_and_a_dead_letter_each(kafka: Broker, tmp_path: Path) -> None:
    large = {
        "message.max.bytes": 1_000_000_000,
        "queue.buffering.max.kbytes": 2_000_000,
        "compression.type": "zstd",
        "log_level": 0,
    }
    producer: Any = Producer({"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2_random", **large})
    with Pipeline(kafka.bootstrap, tmp_path) as pipeline:
        pipeline.start("intake")
        (intake,) = pipeline.running.values()
        topic = f"{pipeline.prefix}injected-metrics"
        sizes = [400 << 20, 500 << 20] + [BATCH_BYTES_MAX - 1000] * 70  # what is below the bound adds up to 1.1 GB
        for size in sizes:
            producer.produce(topic, bytes(size), b"alpha")
            assert producer.flush(60) == 0
        good = InjectedMetric("alpha", "near", "latency_ms", 5.0, "feed", time.time_ns() // 1_000_000)
        producer.produce(topic, encode(good), b"alpha")
        assert producer.flush(60) == 0
        pipeline.wait(lambda: any(b"feed" in r.value for r in pipeline.read("observations")), 120, "the good record")
        pipeline.wait(lambda: len(pipeline.read("dead-letters")) == len(sizes), 60, "a dead letter for each")
        letters = [decode(r.value, DeadLetter) for r in pipeline.read("dead-letters")]
        assert pipeline.deaths == []
        peak_kb = int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{intake.pid}/status").read_text())[0])
        pipeline.stop()
    assert {letter.reason for letter in letters} == {Reason.TOO_LARGE}
    assert [letter.detail for letter in letters[:2]] == [
        f"the batch of offsets {n} to {n} cannot be unpacked to {BATCH_BYTES_MAX} bytes or less" for n in (0, 1)
    ]
    say(f"{sum(sizes) >> 20} MiB in {len(sizes)} batches; intake took {peak_kb >> 10} MiB at most")
    assert peak_kb << 10 < 1 << 30, "seventeen fetches wait at most: 544 MiB"
