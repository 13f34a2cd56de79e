"""Rankings as they are published, for producers: they do not read Kafka themselves.

The latest of each primary first, then each that comes. While no broker answers, it tries again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from infra.kafka.reader import BEGINNING, TopicReader
from schemas.codec import decode
from schemas.config import Kafka
from schemas.errors import CodecError, ProximaError
from schemas.records import FailoverRanking
from schemas.topics import named

log = logging.getLogger(__name__)

_POLL_S = 0.2
_AGAIN_S = 2.0


class RankingWatch:
    """A thread that reads `failover-rankings`; `heard` is called in it."""

    def __init__(self, kafka: Kafka, heard: Callable[[FailoverRanking], None]) -> None:
        self._kafka, self._heard = kafka, heard
        self._topic = named(kafka.topic_prefix, "failover-rankings")
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rankings", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        told = ""
        while not self._closed.is_set():
            try:
                with TopicReader(self._kafka.bootstrap, {self._topic: BEGINNING}) as reader:
                    told = ""
                    self._read(reader)
            except ProximaError as error:
                if str(error) != told:
                    log.warning("rankings cannot be read: %s", error)
                told = str(error)
                self._closed.wait(_AGAIN_S)

    def _read(self, reader: TopicReader) -> None:
        latest: dict[str, FailoverRanking] = {}
        caught_up = False
        while not self._closed.is_set():
            record = reader.poll(_POLL_S)
            if record is not None and record.value is not None:
                try:
                    ranking = decode(record.value, FailoverRanking)
                except CodecError as error:
                    log.warning("%s/%d@%d: %s", record.topic, record.partition, record.offset, error)
                else:
                    if caught_up:
                        self._heard(ranking)
                    else:
                        latest[ranking.primary_region] = ranking
            if not caught_up and reader.at_end:
                caught_up = True
                for ranking in latest.values():
                    self._heard(ranking)
                latest.clear()
