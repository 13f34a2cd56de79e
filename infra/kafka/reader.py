"""Records of topics, for people and tools: no consumer group, nothing committed, nothing disturbed.

with TopicReader(bootstrap, {"failover-rankings": BEGINNING}) as reader:
    while not reader.at_end:
        record = reader.poll(0.1)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from infra.kafka.admin import REACH_TIMEOUT_S, metadata, unavailable
from schemas.connection import client_settings, forbidden
from schemas.errors import KafkaUnavailableError
from schemas.rights import Grant
from schemas.wire import unframed

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
    headers: tuple[tuple[str, bytes | None], ...] = ()


class TopicReader:
    """Reads all partitions of topics, each partition in its order.

    `starts` gives the topics by name on the cluster, each with BEGINNING, NOW, how many of the last records of each
    partition to begin with, or the offset to begin at by partition (only these are read then). `ends` may give offsets
    by topic and partition that are not read any more, nor what is behind them.
    Raises KafkaUnavailableError: no broker answers, or there is no such topic.
    """

    def __init__(
        self,
        bootstrap: str,
        starts: Mapping[str, int | Mapping[int, int]],
        ends: Mapping[str, Mapping[int, int]] | None = None,
    ) -> None:
        self._bootstrap = bootstrap
        self.partitions: dict[str, int] = {}
        self._ends = {(topic, number): end for topic, each in (ends or {}).items() for number, end in each.items()}
        self._consumer: Any = Consumer(_settings(bootstrap))
        try:
            where = [place for topic, start in starts.items() for place in self._places(topic, start)]
        except BaseException:
            self._consumer.close()
            raise
        self._unread = {(tp.topic, tp.partition): end for tp, end in where if tp.offset < end}
        self._consumer.assign([tp for tp, _ in where])
        self._consumer.pause([tp for tp, end in where if tp.offset >= end and (tp.topic, tp.partition) in self._ends])

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
            elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise forbidden(_reading(message.topic()), self._bootstrap)
            elif error.fatal():
                raise KafkaUnavailableError(error.str(), where=self._bootstrap, do="start again")
            return None
        if message.offset() + 1 >= self._unread.get(place, 0):
            self._unread.pop(place, None)
        end = self._ends.get(place)
        if end is not None and message.offset() + 1 >= end:
            self._consumer.pause([TopicPartition(*place)])
            if message.offset() >= end:  # compacted away before it, or fetched already
                return None
        value = message.value()
        if value is not None:
            value = unframed(value)
        headers = tuple(message.headers() or ())
        return RawRecord(*place, message.offset(), message.timestamp()[1], message.key(), value, headers)

    def close(self) -> None:
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _places(self, topic: str, start: int | Mapping[int, int]) -> list[tuple[Any, int]]:
        """Where to begin in each partition, and where it ends now."""
        try:
            partitions = _partitions(self._consumer, self._bootstrap, topic)
            self.partitions[topic] = len(partitions)
            places = []
            for number in sorted(partitions if isinstance(start, int) else start):
                place = TopicPartition(topic, number)
                low, high = self._consumer.get_watermark_offsets(place, timeout=REACH_TIMEOUT_S)
                if isinstance(start, int):
                    place.offset = low if start == BEGINNING else max(low, high - start)
                else:
                    place.offset = min(max(low, start[number]), high)
                places.append((place, min(high, self._ends.get((topic, number), high))))
        except KafkaException as error:
            raise unavailable(error.args[0], self._bootstrap, _reading(topic)) from None
        return places


def offsets_at(bootstrap: str, topic: str, at_ms: int, partitions: Iterable[int] | None = None) -> dict[int, int]:
    """By partition, the first offset appended at or after a moment (Unix, ms); the end where there is none.

    0 ms gives the first offset that the broker still has. Raises KafkaUnavailableError: no broker answers, or there
    is no such topic.
    """
    consumer: Any = Consumer(_settings(bootstrap))
    try:
        known = _partitions(consumer, bootstrap, topic)
        asked = [TopicPartition(topic, n, max(at_ms, 0)) for n in (known if partitions is None else partitions)]
        found = {tp.partition: tp.offset for tp in consumer.offsets_for_times(asked, timeout=REACH_TIMEOUT_S)}
        for number in [n for n, offset in found.items() if offset < 0]:
            _, found[number] = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=REACH_TIMEOUT_S)
    except KafkaException as error:
        raise unavailable(error.args[0], bootstrap, _reading(topic)) from None
    finally:
        consumer.close()
    return found


def _partitions(client: Any, bootstrap: str, topic: str) -> Any:
    """Of a topic that is there, and that we may see."""
    found = metadata(client, bootstrap, topic).topics[topic]
    if found.error is not None and found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        raise forbidden(_reading(topic), bootstrap)
    if not found.partitions:
        raise KafkaUnavailableError(
            f"no topic {topic}", where=bootstrap, do="create the topics with `proxima topics create`"
        )
    return found.partitions


def _reading(topic: str) -> list[Grant]:
    return [Grant("TOPIC", topic, "READ")]


def _settings(bootstrap: str) -> dict[str, Any]:
    return {
        **client_settings(bootstrap),
        "group.id": "proxima-reader",  # the client demands one; it is never joined
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        "fetch.queue.backoff.ms": 5,
        "reconnect.backoff.max.ms": 1_000,
        # Silence by level, and no `error_cb`: Ctrl-C within a callback would not come out of `poll` as what it is.
        "log_level": 0,
    }
