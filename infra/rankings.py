"""Rankings as they are published, for producers: they do not read Kafka themselves.

The last ones of each primary first, then each that comes. While no broker answers, it tries again, and begins anew.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

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
    """A thread that reads `failover-rankings`; `heard` is called in it, with rankings of one primary in their order."""

    def __init__(self, kafka: Kafka, heard: Callable[[Sequence[FailoverRanking]], None], last: int) -> None:
        """`last`: of what is there already, so many of a primary are told at most."""
        self._kafka, self._heard, self._last = kafka, heard, last
        self._topic = named(kafka.topic_prefix, "failover-rankings")
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rankings", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it goes on: only a mistake of ours ends it before its time."""
        return self._thread.is_alive()

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
        found: dict[str, deque[FailoverRanking]] = {}
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
                        self._heard([ranking])
                    else:
                        found.setdefault(ranking.primary_region, deque(maxlen=self._last)).append(ranking)
            if not caught_up and reader.at_end:
                caught_up = True
                for rankings in found.values():
                    self._heard(rankings)
                found.clear()
