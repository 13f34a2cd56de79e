"""A sink on a real topic beside a bare client of the same driver: the same statements, as many at once, in turns.

Short turns, whose order changes: what else the machine does falls on both. The bare client has its records in memory;
the sink's time begins before the first is sent to Kafka, and ends with the last flush confirmed. So it has the sending,
the broker, the reading, the decoding and the checks against it.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any

from confluent_kafka import Producer

from infra.kafka.admin import create_topics
from infra.processes import wait_until
from schemas.codec import encode
from schemas.records import PathWeights
from schemas.topics import named
from sinks.runner import SinkRunner
from sinks.sink import Sink
from tests.sinks.store_targets import weights

TARGETS = tuple(f"region-{i}" for i in range(11))
PRIMARIES = tuple(f"primary-{i}" for i in range(12))
TIMEOUT_S = 300.0


def beside(
    bootstrap: str, sink: Sink, bare: Callable[[Sequence[PathWeights]], None], *, rows: int, turns: int
) -> Iterator[dict[str, Any]]:
    """Each turn's rates and CPU time of this process, and the median of their ratios at the end."""
    prefix = f"bench-{uuid.uuid4().hex[:8]}-"
    create_topics(bootstrap, prefix=prefix)
    topic = named(prefix, "path-weights")
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 2})
    runner = SinkRunner(sink, bootstrap=bootstrap, name="bench", prefix=prefix)
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    sent = 0

    def through_the_sink(values: list[tuple[str, bytes]]) -> None:
        nonlocal sent
        for key, value in values:
            producer.produce(topic, key=key, value=value)
        producer.flush()
        sent += len(values)
        # The topic is new, so its offsets count its records.
        wait_until(lambda: sum([*runner._offsets.flushed.values()]) == sent, TIMEOUT_S, "the last flush")

    taken: dict[str, list[float]] = {"bare": [], "sink": []}
    for turn in range(turns + 1):
        bare_batch, sink_batch = _records(rows, 2 * turn), _records(rows, 2 * turn + 1)
        encoded = [(record.primary_region, encode(record)) for record in sink_batch]
        calls = {"bare": partial(bare, bare_batch), "sink": partial(through_the_sink, encoded)}
        result: dict[str, Any] = {"turn": turn, "rows": len(bare_batch) * len(TARGETS)}
        for name in ("bare", "sink") if turn % 2 else ("sink", "bare"):
            started_s, cpu_s = time.perf_counter(), time.process_time()
            calls[name]()
            took_s, took_cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
            result[f"{name}_rows_per_s"] = round(result["rows"] / took_s)
            result[f"{name}_cpu_us_a_row"] = round(took_cpu_s / result["rows"] * 1e6, 1)
            if turn:  # the first warms everything up
                taken[name].append(took_s)
        if turn:
            yield result
    runner.stop()
    thread.join(60)
    pairs = zip(taken["bare"], taken["sink"], strict=True)
    yield {
        "turns": turns,
        "ratio_median": round(median(bare_s / sink_s for bare_s, sink_s in pairs), 3),
        "ratio_of_sums": round(sum(taken["bare"]) / sum(taken["sink"]), 3),
    }


def _records(rows: int, number: int) -> list[PathWeights]:
    """At least so many paths, 11 a record, of 12 primaries; other ticks for another number."""
    count = -(-rows // len(TARGETS))
    start = number * (count // 12 + 1)
    return [weights(PRIMARIES[n % 12], start + n // 12, TARGETS) for n in range(count)]
