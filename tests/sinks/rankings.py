"""Rankings as decide would publish them, and topics to publish them on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.codec import decode, encode
from schemas.records import Candidate, DeadLetter, FailoverRanking
from schemas.topics import PARTITIONS, named

PRIMARIES = ("eu-west-1", "us-east-1", "ap-south-1", "sa-east-1", "eu-north-1")
CANDIDATES = ("eu-central-1", "us-west-2", "ap-east-1")


def ranking(primary: str = PRIMARIES[0], sequence: int = 1, **changed: Any) -> FailoverRanking:
    """A ranking whose order turns with its sequence, so that an older one cannot be mistaken for a newer."""
    order = [CANDIDATES[(sequence + i) % len(CANDIDATES)] for i in range(len(CANDIDATES))]
    candidates = [
        Candidate(
            region_id=region,
            rank=rank,
            score=0.9 / rank,
            normalized_score=1 / rank,
            baseline_weight=0.5,
            network_weight=0.8,
            readiness=1.0,
            confidence=0.9,
            eligible=True,
        )
        for rank, region in enumerate(order, start=1)
    ]
    fields: dict[str, Any] = {
        "decision_id": f"{primary}-{sequence}",
        "sequence": sequence,
        "decided_at_ms": 1_700_000_000_000 + sequence * 1000,
        "evidence_at_ms": 1_700_000_000_000 + sequence * 1000,
        "primary_region": primary,
        "mode": "NORMAL",
        "advice": "HOLD",
        "events": ["ORDER_CHANGED"],
        "reason": f"{order[0]} leads",
        "config_version": 1,
        "stale_after_ms": 30_000,
        "order_confidence": 0.9,
        "candidates": candidates,
        "target_region": order[0],
    }
    return FailoverRanking(**(fields | changed))


def publish(bootstrap: str, prefix: str, values: Iterable[FailoverRanking | bytes]) -> None:
    """Put rankings (or any bytes, under the first primary's key) on the topic, in order, confirmed."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 1, "enable.idempotence": True}
    )
    topic = named(prefix, "failover-rankings")
    for value in values:
        if isinstance(value, bytes):
            producer.produce(topic, key=PRIMARIES[0].encode(), value=value)
        else:
            producer.produce(topic, key=value.primary_region.encode(), value=encode(value))
    assert producer.flush(30) == 0


def latest_of(rankings: Iterable[FailoverRanking]) -> dict[str, int]:
    """The highest sequence of each primary."""
    found: dict[str, int] = {}
    for r in rankings:
        found[r.primary_region] = max(r.sequence, found.get(r.primary_region, 0))
    return found


def records_on(bootstrap: str, topic: str) -> list[tuple[int, int, bytes]]:
    """Everything on a topic: partition, offset, value."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "tests", "enable.auto.commit": False})
    found: list[tuple[int, int, bytes]] = []
    try:
        marks = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10) for p in range(PARTITIONS)}
        consumer.assign([TopicPartition(topic, p, low) for p, (low, high) in marks.items() if high > low])
        for _ in range(sum(high - low for low, high in marks.values())):
            message = consumer.poll(10)
            assert message is not None, f"{topic} ends early"
            assert message.error() is None
            found.append((message.partition(), message.offset(), message.value()))
    finally:
        consumer.close()
    return found


def rankings_on(bootstrap: str, prefix: str) -> list[FailoverRanking]:
    return [decode(v, FailoverRanking) for _, _, v in records_on(bootstrap, named(prefix, "failover-rankings"))]


def dead_letters_on(bootstrap: str, prefix: str) -> list[DeadLetter]:
    return [decode(v, DeadLetter) for _, _, v in records_on(bootstrap, named(prefix, "dead-letters"))]


def committed(bootstrap: str, prefix: str, name: str) -> dict[int, int]:
    """Offsets that the sink's group has committed, of the partitions that have any."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"{prefix}proxima-sink-{name}"})
    try:
        topic = named(prefix, "failover-rankings")
        asked: Sequence[Any] = consumer.committed([TopicPartition(topic, p) for p in range(PARTITIONS)], timeout=10)
        return {p.partition: p.offset for p in asked if p.offset >= 0}
    finally:
        consumer.close()


def ends(bootstrap: str, prefix: str) -> dict[int, int]:
    """The offset after the last record, of the partitions that have any."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "tests"})
    try:
        topic = named(prefix, "failover-rankings")
        marks = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10) for p in range(PARTITIONS)}
        return {p: high for p, (_, high) in marks.items() if high}
    finally:
        consumer.close()
