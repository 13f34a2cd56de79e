"""A sink on a real topic beside a bare client of the same driver: the same statements, as many at once, in turns.

The sink's time is from its first record taken to its last flush confirmed; it reads Kafka, decodes and checks besides.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from confluent_kafka import Producer

from infra.kafka.admin import create_topics
from infra.processes import wait_until
from schemas.codec import encode
from schemas.records import PathWeights
from schemas.topics import named
from sinks.runner import Meta, Sink, SinkRunner
from tests.sinks.store_targets import AT_MS, weights

TARGETS = tuple(f"region-{i}" for i in range(11))
PRIMARIES = tuple(f"primary-{i}" for i in range(12))
ROUNDS = 5
TIMEOUT_S = 900.0


def records(rows: int, start: int) -> list[PathWeights]:
    """At least so many paths, 11 a record, of 12 primaries from tick `start` on."""
    count = -(-rows // len(TARGETS))
    return [weights(PRIMARIES[n % 12], start + n // 12, TARGETS) for n in range(count)]


def beside(
    bootstrap: str, opened: Callable[[], Sink], bare: Callable[[Sequence[PathWeights]], None], rows: int
) -> Iterator[dict[str, Any]]:
    """Rounds of both, and their medians' ratio at the end."""
    ratios: list[float] = []
    ticks = -(-rows // len(TARGETS) // 12) + 1
    for number in range(ROUNDS + 1):  # the first warms the server up
        batch = records(rows, 2 * number * ticks)
        started_s, cpu_s = time.perf_counter(), time.process_time()
        bare(batch)
        bare_s, bare_cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
        sink_s, sink_cpu_s = sunk(bootstrap, opened(), records(rows, (2 * number + 1) * ticks))
        written = len(batch) * len(TARGETS)
        result = {
            "round": number,
            "rows": written,
            "bare_rows_per_s": round(written / bare_s),
            "sink_rows_per_s": round(written / sink_s),
            "bare_cpu_us_a_row": round(bare_cpu_s / written * 1e6, 1),
            "sink_cpu_us_a_row": round(sink_cpu_s / written * 1e6, 1),
            "ratio": round(bare_s / sink_s, 3),
        }
        if number:
            ratios.append(bare_s / sink_s)
            yield result
    yield {"ratio_median": round(sorted(ratios)[len(ratios) // 2], 3)}


def sunk(bootstrap: str, sink: Sink, batch: Sequence[PathWeights]) -> tuple[float, float]:
    """Seconds that the sink takes for them, once it has the first, and of CPU time."""
    prefix = f"bench-{uuid.uuid4().hex[:8]}-"
    create_topics(bootstrap, prefix=prefix)
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 5,
                         "queue.buffering.max.messages": 1_000_000})  # fmt: skip
    for record in batch:
        producer.produce(named(prefix, "path-weights"), key=record.primary_region, value=encode(record))
    assert producer.flush(60) == 0
    sink.add(weights("connected", 0), Meta("path-weights", 0, 0, AT_MS, None))
    sink.flush()  # the bare client is connected too
    runner = SinkRunner(sink, bootstrap=bootstrap, name="bench", prefix=prefix)
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    wait_until(lambda: runner.counts.taken > 0, 60, "the first record", poll_s=0.001)
    started_s, cpu_s = time.perf_counter(), time.process_time()
    # The topic is new, so its offsets count its records.
    wait_until(lambda: sum([*runner._flushed.values()]) == len(batch), TIMEOUT_S, "the last flush")
    took_s, took_cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
    runner.stop()
    thread.join(60)
    return took_s, took_cpu_s
