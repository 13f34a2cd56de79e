"""A thread that follows topics, for producers: they do not read Kafka themselves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Final

from infra.kafka.reader import RawRecord, TopicReader
from schemas.errors import ProximaError

log = logging.getLogger(__name__)

_POLL_S: Final = 0.2
_AGAIN_S: Final = 5.0


class Follower:
    """Calls back, in its thread, with each record of the topics; and whenever nothing more is there, after one or more.

    `starts`: where each topic is read from (`reader.BEGINNING`, `NOW`). `what` stands in what is said of a failure.
    Raises KafkaUnavailableError: no broker answers, or a topic is not there.
    """

    def __init__(
        self,
        bootstrap: str,
        starts: Mapping[str, int],
        take: Callable[[RawRecord], None],
        settled: Callable[[], None],
        *,
        what: str,
    ) -> None:
        self._take, self._settled, self._what = take, settled, what
        self._reader = TopicReader(bootstrap, dict(starts))
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=what, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Follow no more."""
        self._closed.set()
        self._thread.join()
        self._reader.close()

    def _follow(self) -> None:
        is_news = True  # also that there was nothing
        while not self._closed.is_set():
            try:
                record = self._reader.poll(_POLL_S)
            except ProximaError as error:  # a right was taken away: what is known goes on being used
                log.error("%s cannot be read: %s", self._what, error)
                self._closed.wait(_AGAIN_S)
                continue
            if record is not None:
                self._take(record)
                is_news = True
            # Not what was applied last year and replaced since, but where it stands.
            if is_news and self._reader.at_end:
                self._settled()
                is_news = False
