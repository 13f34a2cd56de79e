"""From a record's bytes to a sink's batch.

Readable records that were handled before (a `sequence` at or below the last) are dropped; unreadable ones, and those
that the target cannot hold, become dead letters.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from schemas.codec import decode, read
from schemas.errors import CodecError
from schemas.letters import kept
from schemas.records import DeadLetter, FailoverRanking, Record
from schemas.topics import Topic
from sinks.dead_letters import DeadLetters
from sinks.gauges import Counts
from sinks.sink import Meta, Place, Sink

log = logging.getLogger(__name__)


class Reading:
    """Of one sink; `topics` by their names on the cluster, `name` is the sink's."""

    def __init__(
        self, sink: Sink, name: str, topics: Mapping[str, Topic], letters: DeadLetters, counts: Counts
    ) -> None:
        self._sink, self._name, self._topics = sink, name, topics
        self._letters, self._counts = letters, counts
        self._sequences: dict[Place, dict[str, tuple[int, int]]] = {}  # primary -> last sequence, and when decided

    def take(self, value: bytes | None, meta: Meta) -> None:
        """Into the batch, or past it."""
        if not self._is_added(value, meta):
            self._sink.skip(meta)

    def forget(self, places: Iterable[Place]) -> None:
        """They are read by others now, or again."""
        for place in places:
            self._sequences.pop(place, None)

    def _is_added(self, value: bytes | None, meta: Meta) -> bool:
        if value is None:  # a tombstone: Kafka's compaction is told to forget
            return False
        topic = self._topics[meta.topic]
        try:
            record: Record = (read if topic.takes_json else decode)(value, *topic.records)
            if isinstance(record, FailoverRanking) and self._was_handled(record, meta.place):
                self._counts.repeated += 1
                return False
            self._sink.add(record, meta)
        except CodecError as error:
            self._bury(value, meta, error)
            return False
        return True

    def _was_handled(self, ranking: FailoverRanking, place: Place) -> bool:
        """Whether a ranking of the primary with this sequence or a higher one came before: a subscriber drops it."""
        seen = self._sequences.setdefault(place, {})
        sequence, decided_at_ms = seen.get(ranking.primary_region, (0, 0))
        if ranking.sequence > sequence:
            seen[ranking.primary_region] = ranking.sequence, ranking.decided_at_ms
            return False
        if ranking.decided_at_ms > decided_at_ms:
            log.warning("%s: a later decision has sequence %d, after %d: numbers went back, it is dropped",
                        ranking.primary_region, ranking.sequence, sequence)  # fmt: skip
            seen[ranking.primary_region] = sequence, ranking.decided_at_ms
        return True

    def _bury(self, value: bytes, meta: Meta, error: CodecError) -> None:
        self._counts.dead_letters += 1
        log.warning("dead letter: %s, partition %d, offset %d: %s", meta.topic, meta.partition, meta.offset, error.what)
        original, key, detail = kept(value, meta.key, error.what)
        self._letters.send(
            DeadLetter(
                reason=error.reason,
                detail=detail,
                source_topic=meta.topic,
                source_partition=meta.partition,
                source_offset=meta.offset,
                appended_at_ms=meta.appended_at_ms,
                found_by=self._name,
                original=original,
                original_key=key,
            )
        )
