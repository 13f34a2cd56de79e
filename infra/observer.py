"""What a pipeline puts out, seen from outside: a plain subscriber that counts and takes times.

It reads `failover-rankings`, `path-weights` and `dead-letters` of a fresh pipeline from their beginning, in a thread.
A ranking that comes twice (at-least-once, identical) is counted once, by its sequence, as every subscriber should.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, TIMESTAMP_LOG_APPEND_TIME, Consumer, Message, TopicPartition

from schemas.codec import decode
from schemas.connection import client_settings
from schemas.errors import CodecError
from schemas.records import Event, FailoverRanking, PathWeights
from schemas.topics import TOPICS, named

_TOPICS: Final = ("failover-rankings", "path-weights", "dead-letters")
_POLL_S: Final = 0.1


class Observer:
    """Counts from the moment that it is entered; every attribute may be read at any time."""

    def __init__(self, bootstrap: str, prefix: str = "") -> None:
        self.rankings: dict[str, FailoverRanking] = {}  # the latest of each primary
        self.rankings_out = 0
        self.target_changes = 0
        self.dead_letters = 0
        self.unreadable = 0
        self._latencies_ms: list[float] = []
        self._evidence_at_ms: dict[str, int] = {}
        self._topics = {named(prefix, topic): topic for topic in _TOPICS}
        self._done = threading.Event()
        self._consumer = Consumer(
            {
                **client_settings(bootstrap),
                "group.id": f"{prefix}observer",  # never joined: partitions are assigned, offsets not committed
                "enable.auto.commit": False,
                # Waits of ours would count as the pipeline's; the second is a second by default.
                "fetch.wait.max.ms": 50,
                "fetch.queue.backoff.ms": 10,
                "log_level": 0,
                "error_cb": lambda _error: None,
            }
        )
        self._consumer.assign(
            [
                TopicPartition(name, partition, OFFSET_BEGINNING)
                for name, topic in self._topics.items()
                for partition in range(TOPICS[topic].partitions)
            ]
        )
        self._thread = threading.Thread(target=self._read, name="observer", daemon=True)

    def target(self, primary: str) -> str | None:
        """The target in force."""
        latest = self.rankings.get(primary)
        return latest.target_region if latest is not None else None

    def forget_latencies(self) -> None:
        """Start taking latencies anew: what waited while the pipeline started says nothing about it."""
        self._latencies_ms = []

    def latency_ms(self, percentile: float) -> float | None:
        """From the broker's append of the newest measurement folded in to its append of the weights made from it."""
        latencies_ms = self._latencies_ms
        return round(float(np.percentile(latencies_ms, percentile)), 1) if latencies_ms else None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        self._consumer.close()

    def _read(self) -> None:
        while not self._done.is_set():
            self._take(self._consumer.consume(500, _POLL_S))

    def _take(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.error() is not None:
                continue
            topic, value = self._topics[message.topic() or ""], bytes(message.value() or b"")
            try:
                if topic == "failover-rankings":
                    self._ranking(decode(value, FailoverRanking))
                elif topic == "path-weights":
                    self._weights(decode(value, PathWeights), message.timestamp())
                else:
                    self.dead_letters += 1
            except CodecError:
                self.unreadable += 1

    def _ranking(self, ranking: FailoverRanking) -> None:
        before = self.rankings.get(ranking.primary_region)
        if before is not None and ranking.sequence <= before.sequence:
            return
        self.rankings_out += 1
        # A primary's first target is no change.
        self.target_changes += Event.TARGET_CHANGED in ranking.events and ranking.previous_target_region is not None
        self.rankings[ranking.primary_region] = ranking

    def _weights(self, weights: PathWeights, timestamp: tuple[Any, int]) -> None:
        kind, appended_at_ms = timestamp
        primary, evidence_at_ms = weights.primary_region, weights.evidence_at_ms
        is_new = evidence_at_ms > self._evidence_at_ms.get(primary, 0)
        if is_new and kind == TIMESTAMP_LOG_APPEND_TIME:
            self._evidence_at_ms[primary] = evidence_at_ms
            self._latencies_ms.append(appended_at_ms - evidence_at_ms)
