"""A store's sink as the process that people start, killed twice, and its store killed once, in the middle of it all."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from infra.processes import ChildProcess, wait_until
from schemas.codec import encode
from schemas.records import Record
from schemas.topics import PARTITIONS, named
from sinks.jsonlines import JsonLinesSink
from sinks.kept import METRICS, TOPICS
from tests.infra.commands import running, succeeds
from tests.sinks.conftest import Pipeline
from tests.sinks.rankings import PRIMARIES, dead_letters_on, ranking
from tests.sinks.store_targets import AT_MS, StoreTarget, configuration, weights

TARGETS = tuple(f"region-{i:02d}" for i in range(11))
NAME = "store"
GARBAGE = (b"", b"\xc3\x01garbage", encode(ranking(sequence=1))[:-3], encode(weights(PRIMARIES[0], 0, weight=[1.0])))
CATCH_UP_S = 900.0


def exactly_once_through_kills(
    store: StoreTarget, pipeline: Pipeline, folder: Path, *, rows: int, away_s: float
) -> dict[str, Any]:
    """`rows` path metrics, rankings and configurations; the store is away for `away_s` at least. Returns figures."""
    records = [weights(PRIMARIES[n % 5], n // 5, TARGETS) for n in range(-(-rows // len(TARGETS)))]
    versions = [configuration(n) for n in range(1, 6)]
    thirds = [records[n::3] for n in range(3)]
    environment = {"PROXIMA_KAFKA__BOOTSTRAP": pipeline.bootstrap, "PROXIMA_KAFKA__TOPIC_PREFIX": pipeline.prefix,
                   "PROXIMA_SINK__NAME": NAME}  # fmt: skip
    if len(records) < 5000:
        environment["PROXIMA_SINK__BATCH_MAX"] = "10"  # so that there is a middle
    config = store.config(folder)
    succeeds("stores", "migrate", "--config", config, **environment)

    @contextmanager
    def sinking(number: int) -> Iterator[ChildProcess]:
        log_path = folder / f"sink-{number}.log"
        with running("sink", store.name, "--config", config, log_path=log_path, **environment) as process:
            yield process
        assert "Traceback" not in log_path.read_text(), log_path.read_text()

    def progress(beyond: int, sink: ChildProcess) -> None:
        wait_until(lambda: done(pipeline) > beyond, 60, f"more than {beyond} committed", children=[sink])

    lines = folder / "rankings.jsonl"
    figures: dict[str, Any] = {"rows": len(records) * len(TARGETS)}
    with pipeline.running(JsonLinesSink(lines)):
        publish(pipeline, "path-weights", GARBAGE[:2] + GARBAGE[3:], PRIMARIES[0])
        publish(pipeline, "path-weights", thirds[0])
        publish(pipeline, "failover-config", versions[:3])
        with sinking(1) as sink:
            progress(0, sink)
            sink.kill()
        publish(pipeline, "failover-rankings", [ranking(p, s) for s in range(1, 21) for p in PRIMARIES])
        publish(pipeline, "failover-rankings", GARBAGE[2:3], PRIMARIES[0])
        publish(pipeline, "path-weights", thirds[1])
        with sinking(2) as sink:
            progress(done(pipeline), sink)
            store.destroy()
            away_at_s = time.monotonic()
            publish(pipeline, "path-weights", thirds[2])
            publish(pipeline, "failover-rankings", [ranking(p, s) for s in range(21, 41) for p in PRIMARIES])
            publish(pipeline, "failover-config", versions[3:])
            log = folder / "sink-2.log"
            wait_until(lambda: "records wait" in log.read_text(), 60, "the outage to be said", children=[sink])
            # Nothing else stops.
            wait_until(lambda: lines.exists() and len(lines.read_text().splitlines()) == 40 * len(PRIMARIES), 30,
                       "the other sink")  # fmt: skip
            wait_until(lambda: time.monotonic() > away_at_s + away_s, away_s + 10, "the outage to be long enough",
                       children=[sink], poll_s=0.2)  # fmt: skip
            sink.kill()
        with sinking(3) as sink:
            store.mend()
            figures["away_s"] = round(time.monotonic() - away_at_s, 1)
            back_at_s = time.monotonic()
            wait_until(lambda: done(pipeline) == ends(pipeline), CATCH_UP_S, "the rest", children=[sink], poll_s=0.2)
            figures["caught_up_s"] = round(time.monotonic() - back_at_s, 1)
    check(store, pipeline, records, versions)
    letters = dead_letters_on(pipeline.bootstrap, pipeline.prefix)
    assert {letter.original for letter in letters if letter.found_by == NAME} == set(GARBAGE)
    return figures


def check(store: StoreTarget, pipeline: Pipeline, records: list[Any], versions: list[Any]) -> None:
    """Everything is there, once each, with its own values."""
    until_ms = AT_MS + 1000 * len(records)
    with store.reader(pipeline.prefix) as reader:
        for number, primary in enumerate(PRIMARIES):
            of_this = records[number::5]
            there = {(m.decided_at_ms, m.target_region) for m in reader.metrics(primary, AT_MS, until_ms)}
            missing = [(r.decided_at_ms, target) for r in of_this for target in TARGETS
                       if (r.decided_at_ms, target) not in there]  # fmt: skip
            assert not missing, f"{primary} lacks {len(missing)} rows, from {missing[0]} to {missing[-1]}"
            found = reader.metrics(primary, AT_MS, until_ms)
            for record in of_this:
                for target, path in sorted(record.paths().items()):
                    metric = next(found)
                    assert (metric.decided_at_ms, metric.target_region) == (record.decided_at_ms, target)
                    assert metric.values == {name: getattr(path, name) for name in METRICS}
            assert next(found, None) is None, "more rows than were written"
            rankings = list(reader.rankings(primary, AT_MS, AT_MS + 3_600_000))
            assert rankings == [ranking(primary, s) for s in range(1, 41)]
            assert reader.latest(primary) == ranking(primary, 40)
        assert [v.configuration for v in reader.configurations(PRIMARIES[0])] == versions


def publish(pipeline: Pipeline, topic: str, values: Iterable[Record | bytes], key: str | None = None) -> None:
    producer = Producer({"bootstrap.servers": pipeline.bootstrap, "partitioner": "murmur2_random", "linger.ms": 2,
                         "enable.idempotence": True, "queue.buffering.max.messages": 1_000_000})  # fmt: skip
    refused: list[str] = []

    def told(error: Any, _message: Any) -> None:  # what is not delivered is not left over either
        if error is not None:
            refused.append(error.str())

    for value in values:
        primary = key if key is not None else value.primary_region  # type: ignore[union-attr]
        encoded = value if isinstance(value, bytes) else encode(value)
        producer.produce(named(pipeline.prefix, topic), key=primary, value=encoded, on_delivery=told)
    assert producer.flush(60) == 0
    assert not refused, refused[:3]


def done(pipeline: Pipeline) -> int:
    """Records that the sink's group has committed."""
    consumer = Consumer({"bootstrap.servers": pipeline.bootstrap, "group.id": f"{pipeline.prefix}proxima-store-{NAME}"})
    try:
        return sum(p.offset for p in consumer.committed(_partitions(pipeline), timeout=10) if p.offset >= 0)
    finally:
        consumer.close()


def ends(pipeline: Pipeline) -> int:
    consumer = Consumer({"bootstrap.servers": pipeline.bootstrap, "group.id": "tests"})
    try:
        return sum(consumer.get_watermark_offsets(p, timeout=10)[1] for p in _partitions(pipeline))
    finally:
        consumer.close()


def _partitions(pipeline: Pipeline) -> list[Any]:
    return [TopicPartition(named(pipeline.prefix, topic), n) for topic in TOPICS for n in range(PARTITIONS)]
