"""Records of topics, for people and tools: no consumer group, nothing committed, nothing disturbed.

with TopicReader(bootstrap, {"failover-rankings": BEGINNING}) as reader:
    while not reader.at_end:
        record = reader.poll(0.1)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from infra.kafka.admin import REACH_TIMEOUT_S, metadata
from schemas.errors import KafkaUnavailableError

BEGINNING: Final = -1
NOW: Final = 0


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record as it stands on its topic; `value` None is a tombstone."""

    topic: str
    partition: int
    offset: int
    appended_at_ms: int
    key: bytes | None
    value: bytes | None


class TopicReader:
    """Reads all partitions of topics, each partition in its order.

    `starts` gives the topics by name on the cluster, each with BEGINNING, NOW, or how many of the last records of
    each partition to begin with.
    Raises KafkaUnavailableError: no broker answers, or there is no such topic.
    """

    def __init__(self, bootstrap: str, starts: Mapping[str, int]) -> None:
        self._bootstrap = bootstrap
        self.partitions: dict[str, int] = {}
        self._consumer: Any = Consumer(_settings(bootstrap))
        try:
            where = [place for topic, start in starts.items() for place in self._places(topic, start)]
        except BaseException:
            self._consumer.close()
            raise
        self._unread = {(tp.topic, tp.partition): end for tp, end in where if tp.offset < end}
        self._consumer.assign([tp for tp, _ in where])

    @property
    def at_end(self) -> bool:
        """Whether everything has been read that was there when the reader was made."""
        return not self._unread

    def poll(self, timeout_s: float) -> RawRecord | None:
        """The next record; None when there is none within the timeout."""
        message = self._consumer.poll(timeout_s)
        if message is None:
            return None
        place = message.topic(), message.partition()
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:  # the last offsets may hold nothing any more (compaction)
                self._unread.pop(place, None)
            elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED or error.fatal():
                raise KafkaUnavailableError(error.str(), where=self._bootstrap, do="grant READ on the topic")
            return None
        if message.offset() + 1 >= self._unread.get(place, 0):
            self._unread.pop(place, None)
        return RawRecord(*place, message.offset(), message.timestamp()[1], message.key(), message.value())

    def close(self) -> None:
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _places(self, topic: str, start: int) -> list[tuple[Any, int]]:
        """Where to begin in each partition, and where it ends now."""
        try:
            partitions = metadata(self._consumer, self._bootstrap, topic).topics[topic].partitions
            if not partitions:
                raise KafkaUnavailableError(
                    f"no topic {topic}", where=self._bootstrap, do="create the topics with `proxima topics create`"
                )
            self.partitions[topic] = len(partitions)
            places = []
            for number in sorted(partitions):
                place = TopicPartition(topic, number)
                low, high = self._consumer.get_watermark_offsets(place, timeout=REACH_TIMEOUT_S)
                place.offset = low if start == BEGINNING else max(low, high - start)
                places.append((place, high))
        except KafkaException as error:
            raise KafkaUnavailableError(
                f"no broker answers: {error.args[0].str()}",
                where=self._bootstrap,
                do="start it, or give another address with --bootstrap or PROXIMA_KAFKA__BOOTSTRAP",
            ) from None
        return places


def _settings(bootstrap: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": bootstrap,
        "group.id": "proxima-reader",  # the client demands one; it is never joined
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        "fetch.queue.backoff.ms": 5,
        "reconnect.backoff.max.ms": 1_000,
        # Silence by level, and no `error_cb`: Ctrl-C within a callback would not come out of `poll` as what it is.
        "log_level": 0,
    }
